"""Run a command in a session and be there: its output to ours, its exit code to ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel

from parhelia_mcp import budget, controller, files, follow
from parhelia_mcp.context import Context
from parhelia_mcp.model import Doing, Reason, State, dollars
from parhelia_mcp.store import Session
from parhelia_mcp.verbs import kill, submit

Request = submit.Request
FASTEST_S, SLOWEST_S = 0.01, 0.1
CHUNK = 1 << 18


class Result(BaseModel):
    task_id: str
    session_id: str
    state: str
    reason: str | None
    detail: str | None
    exit_code: int | None
    spent_usd: float
    output_path: str
    result: dict | None
    next: str


def run(ctx: Context, request: Request, *, replay: bool = True) -> Result:
    """Submit and watch. An interruption ends the session, then goes on up."""
    submitted = submit.run(ctx, request)
    session = ctx.store.session(submitted.session_id or "")
    try:
        return result(ctx, watch(ctx, session, replay=replay))
    except KeyboardInterrupt:
        kill.run(ctx, kill.Request(id=session.task))
        raise


def watch(ctx: Context, session: Session, *, replay: bool) -> Session:
    """Advance the session until it has ended; what it prints goes byte for byte to descriptors 1 and 2."""
    folder = ctx.session_dir(session.task, session.number)
    streams = [(1, folder / "stdout.log"), (2, folder / "stderr.log")] if replay else []
    offsets = {path: 0 for _, path in streams}
    pause = FASTEST_S
    while True:
        before = session
        session = follow.advance(ctx, session)
        ctx.tell(_waits_for(session))
        printed = [_replay(descriptor, path, offsets) for descriptor, path in streams]
        if not session.live:
            after = _next(ctx, session) if session.reason is Reason.LIFETIME else None
            return watch(ctx, after, replay=replay) if after else session
        pause = FASTEST_S if any(printed) or session != before else min(SLOWEST_S, pause * 1.3)
        time.sleep(pause)


def _waits_for(session: Session) -> Doing | None:
    """What keeps a session from its start, as whoever drives it has stored it."""
    if not session.live or session.delivered_at:
        return None
    why = session.last_activity if session.handle else session.observed_why
    return Doing(why) if why else None


def _next(ctx: Context, session: Session) -> Session | None:
    """The session that goes on where this one's sandbox was at its end; None where none will."""
    controller.ensure(ctx)
    while session.id in [one.id for one in ctx.store.outlived()]:
        time.sleep(SLOWEST_S)
    after = ctx.store.newest(session.task)
    return after if after.number > session.number else None


def _replay(descriptor: int, path: Path, offsets: dict[Path, int]) -> bool:
    moved = False
    while data := files.read_at(path, offsets[path], CHUNK):
        files.write_all(descriptor, data)
        offsets[path] += len(data)
        moved = True
    return moved


def result(ctx: Context, session: Session) -> Result:
    return Result(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        reason=str(session.reason) if session.reason else None,
        detail=session.detail,
        exit_code=session.exit_code,
        spent_usd=dollars(budget.account(ctx, session=session.id).spent),
        output_path=os.fspath(ctx.session_dir(session.task, session.number) / "stdout.log"),
        result=dict(session.result) if session.result else None,
        next=f"parhelia pull {session.task}" if session.result else f"parhelia task show {session.task}",
    )


def exit_code(outcome: Result) -> int:
    """The command's own code; 125 where something else ended the session, whatever code that gave the command."""
    own = outcome.reason in (None, Reason.AGENT_EXIT, Reason.AGENT_ERROR)
    if own and outcome.exit_code is not None and outcome.state in (State.COMPLETED, State.FAILED):
        return outcome.exit_code
    return 125
