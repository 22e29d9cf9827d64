"""The end of a session: its work brought home, its sandbox proved gone, its money settled."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from parhelia_mcp import billing, budget, credentials, files, notify, workspace
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Corrupted, LocalFault, NotFound, Partial, Problem, Refused, Usage
from parhelia_mcp.failpoint import reach
from parhelia_mcp.follow.session import is_local, spec_of
from parhelia_mcp.model import Reason, State, moment, now, timestamp
from parhelia_mcp.providers.base import Sandbox
from parhelia_mcp.ssh import keys
from parhelia_mcp.store import Session

LEAVE_S = 3.0  # what a runner that has written its result gets to go by itself


def collect(ctx: Context, session: Session, sandbox: Sandbox, result: dict[str, Any]) -> Session:
    """Bring the work home, prove that the sandbox is gone, settle."""
    gone = sandbox.poll() is not None
    if result.get("judged") and is_local(ctx, session):
        sandbox.terminate()  # what is left of it must not write while its work is kept
        _keep(ctx, session)
    landed = _land(ctx, session, sandbox, result)
    reach("collect.landed")
    _prove_gone(sandbox)
    reason = result.get("reason")
    settled = settle(
        ctx,
        session,
        State(result["state"]),
        Reason(reason) if reason else None,
        result.get("exit_code"),
        str(result.get("detail") or "")[:2000],
        landed,
        result.get("ended_at"),
        gone=gone,
    )
    billing.ask(ctx, settled)
    billing.refresh(ctx, settled.provider)
    return settled


def _keep(ctx: Context, session: Session) -> None:
    """A last checkpoint of a session whose runner died before it could take one; without it the files still land."""
    from parhelia_mcp.checkpoint import retention
    from parhelia_mcp.checkpoint import session as parts
    from parhelia_mcp.checkpoint.create import create
    from parhelia_mcp.checkpoint.manifest import AgentFacts, Counters, Facts
    from parhelia_mcp.checkpoint.store import Store

    folder, spec = ctx.task_dir(session.task), spec_of(session)
    workspace = folder / "workspace"
    if not workspace.is_dir():
        return
    beat = files.read_json(ctx.session_dir(session.task, session.number) / "state.json") or {}
    agent, counted = beat.get("agent") or {}, beat.get("counters") or {}
    kept = list(parts.sources(workspace, folder / "home", agent.get("session_id"), spec.checkpoint.exclude))
    facts = Facts(
        trigger="error",
        task=session.task,
        session=session.id,
        consistent=False,
        agent=AgentFacts(
            kind=spec.agent.kind,
            version=agent.get("version"),
            session_id=agent.get("session_id"),
            cwd=str(workspace),
            transcript=parts.conversation_in(kept),
        ),
        counters=Counters(
            turns=int(counted.get("turns", 0)), tokens=int(counted.get("tokens", 0)), usd=counted.get("usd", 0.0)
        ),
        expires_at=retention.expires_at("error", now(), spec.checkpoint),
    )
    with suppress(Problem):
        key = credentials.checkpoint_key(ctx, make=True) if spec.checkpoint.encrypt else None
        create(Store(folder / "checkpoints", key), kept, facts)


def _prove_gone(sandbox: Sandbox) -> None:
    leave = time.monotonic() + LEAVE_S
    while sandbox.poll() is None and time.monotonic() < leave:
        time.sleep(0.01)
    sandbox.terminate()


def _land(ctx: Context, session: Session, sandbox: Sandbox, result: dict[str, Any]) -> dict[str, Any] | None:
    """The session's work as a ref in the repository it came from; what could not land is said, and stays on disk."""
    sent = spec_of(session).workspace
    bundle = ctx.session_dir(session.task, session.number) / "result.bundle"
    local = is_local(ctx, session)
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


def settle(
    ctx: Context,
    session: Session,
    state: State,
    reason: Reason | None,
    exit_code: int | None,
    detail: str,
    landed: dict[str, Any] | None,
    ended_at: str | None = None,
    *,
    gone: bool = False,
) -> Session:
    """The last charge, the release and the end of the session: one transaction. After it nothing changes any more.

    `gone`: the sandbox had ended by itself before anybody looked, so nothing was paid for after `ended_at`.
    """
    ended = moment(ended_at) if ended_at else now()
    paid_until = min(now(), ended + timedelta(seconds=LEAVE_S)) if gone and ended_at else now()
    with ctx.store.transaction() as db:
        stored = ctx.store.session(session.id)
        if not stored.live:
            return stored
        if stored.started_at:
            seconds = max(0.0, (paid_until - moment(stored.started_at)).total_seconds())
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


def charge_minutes(ctx: Context, session: Session) -> Session:
    """Charge the compute of the whole minutes that are gone."""
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
