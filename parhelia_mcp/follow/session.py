"""What every step asks of a session: its sandbox, what it was told, whether it runs here."""

from __future__ import annotations

from datetime import datetime, timedelta

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import moment, timestamp
from parhelia_mcp.providers.base import Handle, Sandbox
from parhelia_mcp.spec import Spec
from parhelia_mcp.store import Session

WIND_DOWN_S = 300.0  # at most a fifth: the end of what is paid for, in which the runner keeps the work


def runner_ends_s(paid_s: float) -> float:
    """After how much of the time that is paid for the runner ends its agent."""
    return paid_s - min(WIND_DOWN_S, paid_s / 5)


def ends_at(session: Session) -> datetime:
    """When the runner ends the agent of a session; of one that has not started, as if it started now."""
    return moment(session.started_at or timestamp()) + timedelta(seconds=runner_ends_s(session.timeout_s))


def paid_s(runner_s: float) -> float:
    """The time that was paid for, from the time after which the runner ends its agent."""
    return runner_s + min(WIND_DOWN_S, runner_s / 4)


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
