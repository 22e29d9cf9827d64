"""End a session for good: its last work is kept, its cost stops, nothing starts it again."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import budget, controller, delegation, follow
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Unreachable
from parhelia_mcp.model import dollars, timestamp

WAIT_S = 40.0


class Request(BaseModel, extra="forbid"):
    """End a session."""

    id: Annotated[str, Field(description="Task or session")]


class Result(BaseModel):
    task_id: str
    session_id: str
    was: str
    state: str
    spent_usd: float
    note: str | None = None


def run(ctx: Context, request: Request) -> Result:
    """Ask for the end and wait until it is proved. Raises Unreachable `kill-unconfirmed`: it may still cost."""
    session = ctx.store.find(request.id)
    was = str(session.state)
    if not session.live:
        if session in ctx.store.outlived():
            ctx.store.update(session.id, kill_requested_at=timestamp())
        return _result(ctx, session.id, was, f"it had ended already ({session.reason or session.state})")
    if not session.kill_requested_at:
        ctx.store.update(session.id, kill_requested_at=timestamp())
    deadline = time.monotonic() + WAIT_S
    while session.live and time.monotonic() < deadline:
        session = follow.advance(ctx, session)
        if session.live:
            time.sleep(0.05)
    if session.live:
        controller.ensure(ctx)
        raise Unreachable(
            "kill-unconfirmed",
            f"The end of {session.id} was asked for and not seen within {WAIT_S:.0f} s ({session.observed_why or 'it is ending'}): it may still cost. It will be asked again until it is proved.",
            f"parhelia task show {session.task}",
        )
    return _result(ctx, session.id, was, _going_on(ctx, session.task))


def _going_on(ctx: Context, task: str) -> str | None:
    """What a person has to know of tasks that were handed on: each is a task of its own and is ended by itself."""
    alive = [child for child in delegation.children(ctx, task) if ctx.store.newest(child).live]
    return f"what it handed on goes on: {', '.join(alive)}" if alive else None


def _result(ctx: Context, session: str, was: str, note: str | None) -> Result:
    now = ctx.store.session(session)
    return Result(
        task_id=now.task,
        session_id=now.id,
        was=was,
        state=str(now.state),
        spent_usd=dollars(budget.account(ctx, session=now.id).spent),
        note=note,
    )
