"""What every step asks of a session: its sandbox, what it was told, whether it runs here."""

from __future__ import annotations

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.providers.base import Handle, Sandbox
from parhelia_mcp.spec import Spec
from parhelia_mcp.store import Session


def open_sandbox(ctx: Context, session: Session) -> Sandbox:
    """The sandbox of a session that was started."""
    held = session.handle or {}
    return ctx.provider(session.provider).open(Handle(held["provider"], held["name"], held["data"]))


def spec_of(session: Session) -> Spec:
    """What the session was told."""
    return Spec.of(session.spec or {})


def is_local(ctx: Context, session: Session) -> bool:
    """Whether its files are files of this machine."""
    return ctx.provider(session.provider).properties.local_disk


def said(problem: Problem) -> str:
    """A problem as the database keeps it: its words for people, its code for the diagnosis."""
    return f"{problem.message} [{problem.code}]"
