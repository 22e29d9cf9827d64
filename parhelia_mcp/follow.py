"""Drive one session forward: start, deliver, read its journal, charge, collect, settle.

`advance` may be called by anyone at any time, any number of times; the session's lock lets one in. Each step stores what it
did before the next begins, so that dying between any two loses nothing and doubles nothing.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from parhelia_mcp import budget, credentials, files, locks, notify, workspace
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Corrupted, LocalFault, NotFound, Partial, Problem, Refused, Unreachable, Usage
from parhelia_mcp.failpoint import reach
from parhelia_mcp.model import Reason, State, moment, now, timestamp
from parhelia_mcp.providers.base import Exit, Handle, Sandbox, SandboxSpec
from parhelia_mcp.spec import Workspace
from parhelia_mcp.ssh import keys
from parhelia_mcp.store import Session

START_WITHIN = timedelta(minutes=30)  # a start that no provider would give by then has failed
READY_WITHIN = timedelta(minutes=5)  # from the delivery to the runner's first sign of life
STOP_GRACE = timedelta(seconds=20)  # from a kill's request to the end by force
OVERDUE = timedelta(seconds=90)  # past the deadline before the sandbox is ended from outside
LEAVE_S = 3.0  # what a runner that has written its result gets to go by itself
BATCH = 1 << 20
QUIET = frozenset({"entrypoint", "config", "hook", "usage", "checkpoint"})  # events that are no activity of the agent


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
    except Unreachable as problem:
        return _unobserved(ctx, ctx.store.session(session.id), problem)
    finally:
        os.close(lock)


def _steps(ctx: Context, session: Session) -> Session:
    if not session.live:
        return session
    if session.handle is None:
        session = _start(ctx, session)
    if session.handle is not None and session.live and session.delivered_at is None:
        session = _deliver(ctx, session)
    if session.delivered_at is not None and session.live:
        session = _watch(ctx, session)
    return session


# Start and deliver


def _start(ctx: Context, session: Session) -> Session:
    if session.kill_requested_at:
        return _settle(ctx, session, State.KILLED, Reason.KILLED_BY_USER, None, "killed before it started", None)
    if moment(session.created_at) + START_WITHIN < now():
        why = session.observed_why or "no sandbox came"
        return _settle(
            ctx,
            session,
            State.FAILED,
            Reason.START_TIMEOUT,
            None,
            f"not started within {START_WITHIN.seconds // 60} minutes: {why}",
            None,
        )
    if why := _no_room(ctx, session):
        return session if session.observed_why == why else ctx.store.update(session.id, observed_why=why)
    if session.next_try_at and moment(session.next_try_at) > now():
        return session
    try:
        spec = _sandbox_spec(ctx, session)
        handle = ctx.provider(session.provider).start(spec)
    except Unreachable as problem:
        return ctx.store.update(
            session.id,
            observed=False,
            observed_why=problem.message,
            next_try_at=timestamp(now() + timedelta(seconds=5)),
        )
    except (Refused, Usage, NotFound, LocalFault, Corrupted) as problem:
        return _settle(ctx, session, State.FAILED, Reason.START_FAILED, None, str(problem), None)
    reach("start.created")
    began = now()
    return ctx.store.update(
        session.id,
        state=State.STARTING,
        handle={"provider": handle.provider, "name": handle.name, "data": dict(handle.data)},
        started_at=timestamp(began),
        deadline=timestamp(began + timedelta(seconds=session.timeout_s)),
        observed=True,
        observed_at=timestamp(began),
        observed_why=None,
    )


def _no_room(ctx: Context, session: Session) -> str:
    """Why a local session has to wait for others, or nothing."""
    if not ctx.provider(session.provider).properties.local_disk:
        return ""
    most = ctx.loaded.config.local.max_sessions
    before = [
        other for other in ctx.store.live(session.provider) if other.handle is not None and other.id != session.id
    ]
    return f"waits for a free place: {len(before)} of {most} local sessions run" if len(before) >= most else ""


def _sandbox_spec(ctx: Context, session: Session) -> SandboxSpec:
    kind = (session.spec or {}).get("agent", {}).get("kind")
    secret = credentials.resolve(ctx) if kind == "claude" else credentials.NONE
    return SandboxSpec(
        name=session.id,
        sizes=session.sizes,
        timeout_s=session.timeout_s,
        tags={"parhelia": "1", "owner": ctx.owner, "task": session.task, "session": session.id},
        region=session.region,
        secrets=secret.secrets,
        credential={**secret.values, **keys.make(ctx.home, session.id).for_sandbox()},
    )


def _deliver(ctx: Context, session: Session) -> Session:
    """Put the inputs, then the spec: its arrival is what the runner waits for."""
    sandbox = open_sandbox(ctx, session)
    for name, path in session.sources or ():
        sandbox.put(f"sessions/{session.number}/{name}", Path(path), deadline=600)
    reach("deliver.inputs")
    raw = dict(session.spec or {})
    raw["limits"] = {**raw["limits"], "deadline": session.deadline}
    sandbox.put("spec.json", json.dumps(raw, ensure_ascii=False).encode())
    reach("deliver.spec")
    return ctx.store.update(session.id, delivered_at=timestamp())


def open_sandbox(ctx: Context, session: Session) -> Sandbox:
    """The sandbox of a session that was started."""
    held = session.handle or {}
    return ctx.provider(session.provider).open(Handle(held["provider"], held["name"], held["data"]))


# Watch


def _watch(ctx: Context, session: Session) -> Session:
    sandbox = open_sandbox(ctx, session)
    session = _read(ctx, session, sandbox)
    if result := _result(session, sandbox):
        return _collect(ctx, session, sandbox, result)
    ended = sandbox.poll()
    if ended is not None:
        session = _read(ctx, session, sandbox)  # what it wrote between the reading and its end
        return _collect(ctx, session, sandbox, _result(session, sandbox) or _verdict(session, ended))
    if session.kill_requested_at:
        return _stop(ctx, session, sandbox)
    if session.deadline and moment(session.deadline) + OVERDUE < now():
        sandbox.terminate()
        return _collect(
            ctx,
            session,
            sandbox,
            _judged(State.FAILED, Reason.TIMEOUT, None, "passed its deadline and was ended from outside"),
        )
    if session.state is State.STARTING and moment(session.delivered_at or "") + READY_WITHIN < now():
        sandbox.terminate()
        return _collect(
            ctx, session, sandbox, _judged(State.FAILED, Reason.START_TIMEOUT, None, "the runner gave no sign of life")
        )
    return _observed(ctx, session, sandbox)


def _read(ctx: Context, session: Session, sandbox: Sandbox) -> Session:
    """Apply what the journal says since last time: state, charges and offset in one transaction a batch."""
    base = f"sessions/{session.number}"
    mirror = (
        None if ctx.provider(session.provider).properties.local_disk else ctx.session_dir(session.task, session.number)
    )
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
                charged |= budget.charge(
                    db, session, "tokens", int(event.get("micro_usd", 0)), str(event.get("key", event.get("seq")))
                )
            if kind == "agent-started":
                changes["state"] = State.RUNNING
                changes["agent_session"] = event.get("session_id") or session.agent_session
            if kind == "waiting":
                changes["waiting_for"] = str(event.get("text", ""))[:500]
            if kind and kind not in QUIET:
                changes["last_activity"] = str(event.get("text", ""))[:200]
                changes["last_event_at"] = event.get("at")
        session = ctx.store.update(session.id, db, **changes)
        reach("follow.apply")
    if charged:
        budget.publish(ctx)
    return session


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
    return result if result.get("session") == session.id else None


def _verdict(session: Session, ended: Exit) -> dict[str, Any]:
    """How a session ended whose runner could not say it."""
    if session.kill_requested_at:
        return _judged(
            State.KILLED, Reason.KILLED_BY_USER, ended.code, "killed; its runner was gone before it could report"
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
        return _collect(
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
    if phase in ("running", "waiting") and session.state in (State.RUNNING, State.WAITING) and phase != session.state:
        changes["state"] = State(phase)
    stale = (
        not session.observed or not session.observed_at or moment(session.observed_at) + timedelta(seconds=5) < now()
    )
    if changes or stale:
        changes |= {"observed": True, "observed_at": timestamp(), "observed_why": None}
        session = ctx.store.update(session.id, **changes)
    if changes.get("state") is State.WAITING:
        notify.tell(ctx, session)
    return _charge_minutes(ctx, session)


def _charge_minutes(ctx: Context, session: Session) -> Session:
    minutes = int((now() - moment(session.started_at or timestamp())).total_seconds() // 60)
    if not session.rate_micro or minutes < 1:
        return session
    with ctx.store.transaction() as db:
        charged = budget.charge(db, session, "compute", _compute_due(db, session, minutes * 60), f"minute:{minutes}")
    if charged:
        budget.publish(ctx)
    return session


def _compute_due(db: Any, session: Session, seconds: float) -> int:
    """What compute costs up to now, less what was charged already."""
    row = db.execute("SELECT charged FROM accounts WHERE session = ? AND source = 'compute'", (session.id,)).fetchone()
    paid = min(seconds, session.timeout_s)
    return max(0, -(-session.rate_micro * round(paid * 1000) // 3_600_000) - (row["charged"] if row else 0))


def _unobserved(ctx: Context, session: Session, problem: Problem) -> Session:
    if session.observed or session.observed_why != problem.message:
        return ctx.store.update(session.id, observed=False, observed_why=problem.message)
    return session


# Collect and settle


def _collect(ctx: Context, session: Session, sandbox: Sandbox, result: dict[str, Any]) -> Session:
    """Bring the work home, prove that the sandbox is gone, settle."""
    landed = _land(ctx, session, sandbox, result)
    reach("collect.landed")
    _prove_gone(sandbox)
    reason = result.get("reason")
    return _settle(
        ctx,
        session,
        State(result["state"]),
        Reason(reason) if reason else None,
        result.get("exit_code"),
        str(result.get("detail") or "")[:2000],
        landed,
        result.get("ended_at"),
    )


def _prove_gone(sandbox: Sandbox) -> None:
    leave = time.monotonic() + LEAVE_S
    while sandbox.poll() is None and time.monotonic() < leave:
        time.sleep(0.01)
    sandbox.terminate()


def _land(ctx: Context, session: Session, sandbox: Sandbox, result: dict[str, Any]) -> dict[str, Any] | None:
    """The session's work as a ref in the repository it came from; what could not land is said, and stays on disk."""
    sent = workspace_of(session)
    bundle = ctx.session_dir(session.task, session.number) / "result.bundle"
    local = ctx.provider(session.provider).properties.local_disk
    try:
        if local and result.get("judged"):
            folder = ctx.task_dir(session.task) / "workspace"
            if folder.is_dir() and sent.kind in ("git", "files"):
                workspace.collect(
                    folder, sent, bundle, session=session.id, message=f"Work of {session.id}, as it was left"
                )
        elif not local:
            sandbox.get(f"sessions/{session.number}/result.bundle", bundle, deadline=600)
        if not bundle.exists():
            return None
        task = ctx.store.task(session.task)
        if task.source is None:
            return None
        landed = workspace.land(Path(task.source), sent, bundle, task=session.task, number=session.number)
    except NotFound:
        return None  # nothing was changed, so there is no bundle
    except (Refused, Usage, LocalFault, Corrupted, Partial) as problem:
        return {"ref": None, "branch": None, "commit": None, "files_changed": None, "notes": [str(problem)]}
    return {
        "ref": landed.ref,
        "branch": landed.branch,
        "commit": landed.commit,
        "files_changed": landed.files_changed,
        "notes": list(landed.notes),
        "risky_paths": list(landed.risky_paths)[:50],
    }


def workspace_of(session: Session) -> Workspace:
    """What was sent into the session, as its spec says."""
    raw = dict((session.spec or {})["workspace"])
    return replace(Workspace(kind=raw["kind"]), **{**raw, "inputs": tuple(raw["inputs"])})


def _settle(
    ctx: Context,
    session: Session,
    state: State,
    reason: Reason | None,
    exit_code: int | None,
    detail: str,
    landed: dict[str, Any] | None,
    ended_at: str | None = None,
) -> Session:
    """The last charge, the release and the end of the session: one transaction. After it nothing changes any more."""
    ended = moment(ended_at) if ended_at else now()
    with ctx.store.transaction() as db:
        if session.started_at:
            seconds = max(0.0, (max(ended, now()) - moment(session.started_at)).total_seconds())
            budget.charge(db, session, "compute", _compute_due(db, session, seconds), "final")
        reach("settle.charged")
        budget.release(db, session)
        session = ctx.store.update(
            session.id,
            db,
            state=state,
            reason=reason,
            exit_code=exit_code,
            detail=detail,
            ended_at=timestamp(ended),
            settled_at=timestamp(),
            result=landed,
            observed=True,
            observed_at=timestamp(),
            observed_why=None,
            waiting_for=None,
        )
    reach("settle.done")
    keys.forget(ctx.home, session.id)
    budget.publish(ctx)
    notify.tell(ctx, session)
    return session


def reserve_for(rate_micro: int, timeout_s: float) -> int:
    """The most that compute can cost: the rate for the whole time that is paid for, rounded up."""
    return -(-rate_micro * round(timeout_s * 1000) // 3_600_000)
