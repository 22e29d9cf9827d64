"""Drive one session forward: start, deliver, read its journal, charge, collect, settle.

`advance` may be called by anyone at any time, any number of times; the session's lock lets one in. Each step stores what it
did before the next begins, so that dying between any two loses nothing and doubles nothing.
"""

from __future__ import annotations

import os

from parhelia_mcp import files, locks
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Problem, Unreachable
from parhelia_mcp.follow import settle, start, watch
from parhelia_mcp.follow.session import ends_at, open_sandbox, said, spec_of
from parhelia_mcp.follow.settle import reserve_for
from parhelia_mcp.model import Reason, State
from parhelia_mcp.store import Session

__all__ = ["abandon", "advance", "ends_at", "open_sandbox", "reserve_for", "spec_of"]


def advance(ctx: Context, session: Session) -> Session:
    """Take every step that can be taken now and return the session as it then is.

    Somebody else advancing it is fine: then nothing is done here. Faults of the provider are recorded in the session, not
    raised.
    """
    if not session.live:
        return ctx.store.session(session.id)
    directory = files.private_dir(ctx.session_dir(session.task, session.number))
    lock = locks.try_acquire(directory / "advance.lock")
    if lock is None:
        return ctx.store.session(session.id)
    try:
        return _steps(ctx, ctx.store.session(session.id))
    except (Unreachable, Busy) as problem:
        return _unobserved(ctx, ctx.store.session(session.id), problem)
    finally:
        os.close(lock)


def abandon(ctx: Context, session: Session, detail: str) -> Session:
    """Give up a start that no sandbox came of; what has a sandbox is left as it is.

    Raises Unreachable where it cannot be seen that none came.
    """
    directory = files.private_dir(ctx.session_dir(session.task, session.number))
    with locks.exclusive(directory / "advance.lock", wait_s=10, what=session.id):
        session = ctx.store.session(session.id)
        if session.live and session.handle is None:
            session = start.withdraw(ctx, session)
            return settle.settle(ctx, session, State.FAILED, Reason.START_FAILED, None, detail, None)
        return session


def _steps(ctx: Context, session: Session) -> Session:
    if not session.live:
        return session
    if session.handle is None:
        session = start.start(ctx, session)
    if session.handle is not None and session.live and session.delivered_at is None:
        session = start.deliver(ctx, session)
    if session.delivered_at is not None and session.live:
        session = watch.watch(ctx, session)
    return session


def _unobserved(ctx: Context, session: Session, problem: Problem) -> Session:
    if session.observed or session.observed_why != said(problem):
        return ctx.store.update(session.id, observed=False, observed_why=said(problem))
    return session
