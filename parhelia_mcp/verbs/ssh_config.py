"""Entries for `~/.ssh/config`, so that ssh, scp, rsync and editors reach sessions like any host."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import follow
from parhelia_mcp.context import Context
from parhelia_mcp.errors import NotFound, Refused, Unreachable
from parhelia_mcp.ssh import client, keys
from parhelia_mcp.ssh.port import WANTED
from parhelia_mcp.store import Session


class Request(BaseModel, extra="forbid"):
    """Print the ssh configuration of a session, or of all that live."""

    id: Annotated[str | None, Field(description="Task or session")] = None


class Host(BaseModel):
    session_id: str
    names: list[str]
    host: str
    port: int
    user: str


class Result(BaseModel):
    text: str
    hosts: list[Host]
    notes: list[str]


def run(ctx: Context, request: Request) -> Result:
    """The entries as they are now: a session that starts its server again, or is resumed, has a new one."""
    if request.id is None:
        return _all(ctx, ctx.store.live())
    session = ctx.store.find(request.id)
    if not session.live:
        what = f"{session.id} has ended ({session.state}): there is no host to reach."
        raise Refused("session-ended", what, f"parhelia resume {session.task}")
    found = _all(ctx, [follow.advance(ctx, session)])
    if not found.hosts:
        raise Unreachable("ssh-not-ready", found.notes[0], f"parhelia status {session.task}")
    return found


def _all(ctx: Context, sessions: list[Session]) -> Result:
    entries, hosts, notes = [], [], [] if sessions else ["No session lives: there is no host to reach."]
    for session in sessions:
        own = keys.of(ctx.home, session.id)
        if own is None or session.handle is None:
            notes.append(f"{session.id} is {session.state} and has no ssh server yet.")
            continue
        try:
            host, port = follow.open_sandbox(ctx, session).tunnel(WANTED)
        except (Unreachable, NotFound) as problem:
            notes.append(f"{session.id}: {problem.message}")
            continue
        entries.append(client.entry(own, host, port))
        hosts.append(
            Host(session_id=session.id, names=list(client.aliases(session.id)), host=host, port=port, user=client.USER)
        )
    return Result(text="\n".join(entries), hosts=hosts, notes=notes)
