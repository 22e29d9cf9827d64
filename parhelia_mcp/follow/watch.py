"""While a session runs: its journal, its heartbeat, its limits, its end."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from parhelia_mcp import budget, files, notify, snapshots
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Unreachable
from parhelia_mcp.failpoint import reach
from parhelia_mcp.follow.session import is_local, open_sandbox, spec_of
from parhelia_mcp.follow.settle import charge_minutes, collect
from parhelia_mcp.model import Reason, State, moment, now, timestamp
from parhelia_mcp.providers.base import Exit, Sandbox
from parhelia_mcp.store import Session

READY_WITHIN = timedelta(minutes=5)  # from the delivery to the runner's first sign of life
STOP_GRACE = timedelta(seconds=20)  # from a kill's request to the end by force
OVERDUE = timedelta(seconds=90)  # past the deadline before the sandbox is ended from outside
BATCH = 1 << 20
QUIET = frozenset({"entrypoint", "config", "hook", "usage", "checkpoint"})  # events that are no activity of the agent


def watch(ctx: Context, session: Session) -> Session:
    sandbox = open_sandbox(ctx, session)
    result = _result(session, sandbox)
    reach("watch.result")
    session = _read(ctx, session, sandbox)  # after the result: all that was written before it is there
    if result:
        return collect(ctx, session, sandbox, result)
    ended = sandbox.poll()
    if ended is not None:
        session = _read(ctx, session, sandbox)  # what it wrote between the reading and its end
        return collect(ctx, session, sandbox, _result(session, sandbox) or _verdict(session, ended))
    if session.kill_requested_at:
        return _stop(ctx, session, sandbox)
    if session.deadline and moment(session.deadline) + OVERDUE < now():
        sandbox.terminate()
        return collect(
            ctx,
            session,
            sandbox,
            _judged(State.FAILED, Reason.TIMEOUT, None, "passed its deadline and was ended from outside"),
        )
    if session.state is State.STARTING and moment(session.delivered_at or "") + READY_WITHIN < now():
        sandbox.terminate()
        return collect(
            ctx, session, sandbox, _judged(State.FAILED, Reason.START_TIMEOUT, None, "the runner gave no sign of life")
        )
    return _observed(ctx, session, sandbox)


def _read(ctx: Context, session: Session, sandbox: Sandbox) -> Session:
    """Apply what the journal says since last time: state, charges and offset in one transaction a batch."""
    base = f"sessions/{session.number}"
    mirror = None if is_local(ctx, session) else ctx.session_dir(session.task, session.number)
    while data := sandbox.read(f"{base}/events.jsonl", session.journal_offset, BATCH):
        lines = list(files.whole_lines(data))
        if not lines:
            break
        if mirror:
            _mirror(mirror / "events.jsonl", session.journal_offset, data[: lines[-1][1]])
        session = _apply(ctx, session, [line for line, _ in lines], session.journal_offset + lines[-1][1])
    if mirror:
        for name in ("stdout.log", "stderr.log"):
            _mirror_rest(sandbox, f"{base}/{name}", mirror / name)
    return session


def _apply(ctx: Context, session: Session, lines: list[bytes], offset: int) -> Session:
    changes: dict[str, Any] = {
        "journal_offset": offset,
        "observed": True,
        "observed_at": timestamp(),
        "observed_why": None,
    }
    charged = False
    with ctx.store.transaction() as db:
        for line in lines:
            event = _event(line)
            kind = event.get("kind")
            if kind == "usage":
                value, key = micro_of(event), str(event.get("key", event.get("seq")))[:200]
                charged |= budget.charge(db, session, "tokens", value, key)
            if kind == "delegate":
                _keep_request(db, session, event)
            if kind == "checkpoint":
                snapshots.want(ctx, db, session, event)
            changes |= _seen(session, event)
        session = ctx.store.update(session.id, db, **changes)
        reach("follow.apply")
    if charged:
        budget.publish(ctx)
    return session


def _seen(session: Session, event: dict[str, Any]) -> dict[str, Any]:
    """What an event changes in the session's row."""
    kind, text, at = event.get("kind"), str(event.get("text", "")), event.get("at")
    changes: dict[str, Any] = {}
    if kind == "agent-started":
        changes["state"] = State.RUNNING
        changes["agent_session"] = str(event.get("session_id") or session.agent_session or "")[:100] or None
    if kind and kind not in QUIET:
        changes |= {"last_activity": text[:200], "last_event_at": at if _is_time(at) else None}
    return changes


def _keep_request(db: Any, session: Session, event: dict[str, Any]) -> None:
    """Store what the agent asks to hand on, once; the controller sees to it."""
    number, request = event.get("number"), event.get("request")
    if isinstance(number, int) and isinstance(request, dict):
        db.execute(
            "INSERT INTO delegations (session, number, request) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (session.id, number, json.dumps(request)),
        )


def micro_of(event: dict[str, Any]) -> int:
    """Micro-dollars of a usage event; what is no number of them is nothing, the reservation still bounds the session."""
    value = event.get("micro_usd")
    return value if isinstance(value, int) and 0 <= value <= budget.MOST else 0


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _mirror(path: Path, offset: int, data: bytes) -> None:
    """Write fetched bytes at their own offset: doing it again changes nothing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)


def _mirror_rest(sandbox: Sandbox, source: str, target: Path) -> None:
    offset = target.stat().st_size if target.exists() else 0
    while data := sandbox.read(source, offset, BATCH):
        _mirror(target, offset, data)
        offset += len(data)


def _result(session: Session, sandbox: Sandbox) -> dict[str, Any] | None:
    """What the runner wrote when it was done, or None while it is not."""
    data = sandbox.read(f"sessions/{session.number}/result.json", 0, BATCH)
    result = _event(data) if data.endswith(b"\n") else {}
    if result.get("session") != session.id:
        return None
    code, reason = result.get("exit_code"), result.get("reason")
    sound = (
        result.get("state") in (State.COMPLETED, State.FAILED, State.KILLED)
        and (reason is None or reason in list(Reason))
        and (code is None or isinstance(code, int))
        and _is_time(result.get("ended_at"))
    )
    return result if sound else _judged(State.LOST, Reason.PROVIDER_LOST, None, "error: the result is not one of ours")


def _is_time(value: Any) -> bool:
    try:
        return value is None or bool(moment(value))
    except (ValueError, TypeError, AttributeError):
        return False


def _verdict(session: Session, ended: Exit) -> dict[str, Any]:
    """How a session ended whose runner could not say it."""
    if session.kill_requested_at:
        return _judged(
            State.KILLED, Reason.KILLED_BY_USER, ended.code, "killed; its runner was gone before it could report"
        )
    if ended.cause == "timeout" and spec_of(session).limits.left_s:
        return _judged(
            State.FAILED,
            Reason.LIFETIME,
            ended.code,
            "the sandbox reached the end of its life before the work was kept",
        )
    if ended.cause == "timeout":
        return _judged(State.FAILED, Reason.TIMEOUT, ended.code, "the provider ended the sandbox at its time limit")
    if ended.cause == "out-of-memory":
        return _judged(
            State.FAILED, Reason.OUT_OF_MEMORY, ended.code, "oom: the provider ended the sandbox for its memory"
        )
    how = f"exit code {ended.code}" if ended.code is not None else "unseen"
    return _judged(
        State.LOST,
        Reason.PROVIDER_LOST,
        None,
        f"error: the sandbox is gone without a result (its end: {ended.cause or how})",
    )


def _judged(state: State, reason: Reason, code: int | None, detail: str) -> dict[str, Any]:
    return {"state": str(state), "reason": str(reason), "exit_code": code, "detail": detail, "judged": True}


def _stop(ctx: Context, session: Session, sandbox: Sandbox) -> Session:
    """Ask the runner to end; by force once the grace is over."""
    if moment(session.kill_requested_at or "") + STOP_GRACE < now():
        sandbox.terminate()
        return collect(
            ctx,
            session,
            sandbox,
            _judged(State.KILLED, Reason.KILLED_BY_USER, None, "killed by force: its runner did not end in time"),
        )
    with suppress(Unreachable):  # a runner that cannot hear is ended by force when the grace is over
        sandbox.control({"id": "kill", "op": "stop", "args": {"reason": str(Reason.KILLED_BY_USER)}}, deadline=2)
    return session


def _observed(ctx: Context, session: Session, sandbox: Sandbox) -> Session:
    """Take the live state from the runner's heartbeat, and charge the minutes gone."""
    beat = _event(sandbox.read(f"sessions/{session.number}/state.json", 0, BATCH))
    phase = beat.get("phase")
    changes: dict[str, Any] = {}
    if phase in ("running", "waiting") and session.state in (State.RUNNING, State.WAITING):
        told = {"state": State(phase), "waiting_for": str(beat.get("waiting") or "")[:500] or None}
        changes = {name: value for name, value in told.items() if value != getattr(session, name)}
    stale = (
        not session.observed or not session.observed_at or moment(session.observed_at) + timedelta(seconds=5) < now()
    )
    if changes or stale:
        changes |= {"observed": True, "observed_at": timestamp(), "observed_why": None}
        session = ctx.store.update(session.id, **changes)
    if changes.get("state") is State.WAITING:
        notify.tell(ctx, session)
    return charge_minutes(ctx, session)
