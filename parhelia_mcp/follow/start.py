"""From a reservation to a runner that has been told what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from parhelia_mcp import credentials, locks, snapshots
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Corrupted, LocalFault, NotFound, Refused, Unreachable, Usage
from parhelia_mcp.failpoint import reach
from parhelia_mcp.follow.session import ends_at, is_local, open_sandbox, said, spec_of
from parhelia_mcp.follow.settle import settle
from parhelia_mcp.model import Doing, Reason, State, moment, now, timestamp
from parhelia_mcp.plain import size
from parhelia_mcp.providers.base import SandboxSpec
from parhelia_mcp.spec import CHECKPOINT_KEY, Spec
from parhelia_mcp.ssh import keys
from parhelia_mcp.store import Session

START_WITHIN = timedelta(minutes=30)  # a start that no provider would give by then has failed
ANSWER_S = 2.0  # a provider gets this long to refuse or to start; what takes longer is pending, and found again by name
STORE_S = 1.0  # between two times that the row says how much was uploaded
SENDING = "sending the workspace"
RETRY = timedelta(seconds=5)  # after a provider that did not answer


def start(ctx: Context, session: Session) -> Session:
    if session.kill_requested_at:
        session = withdraw(ctx, session)
        return settle(ctx, session, State.KILLED, Reason.KILLED_BY_USER, None, "killed before it started", None)
    given_up = moment(session.created_at) + START_WITHIN
    if given_up < now():
        outlived = given_up + timedelta(seconds=session.timeout_s)  # one whose answer was lost has ended by itself then
        if now() < outlived:
            session = withdraw(ctx, session)
        why = session.observed_why or "no sandbox came"
        return settle(
            ctx,
            session,
            State.FAILED,
            Reason.START_TIMEOUT,
            None,
            f"not started within {START_WITHIN.seconds // 60} minutes: {why}",
            None,
        )
    if session.next_try_at and moment(session.next_try_at) > now():
        return session
    if not is_local(ctx, session):
        return _create(ctx, session)
    with locks.exclusive(ctx.home / "start.lock", wait_s=10, what="another start on this machine"):
        if why := _no_room(ctx, session):
            return session if session.observed_why == why else ctx.store.update(session.id, observed_why=why)
        return _create(ctx, session)


def withdraw(ctx: Context, session: Session) -> Session:
    """See that no sandbox came of a start: one whose answer was lost is ended, and paid for from when it was asked for."""
    since = ctx.provider(session.provider).withdraw(session.id)
    return ctx.store.update(session.id, started_at=since) if since else session


def _create(ctx: Context, session: Session) -> Session:
    began = now()  # before it exists: what it costs is never less than what is charged
    image = None
    try:
        spec = _sandbox_spec(ctx, session)
        image = spec.image
        handle = ctx.provider(session.provider).start(spec, deadline=ANSWER_S)
    except Unreachable as problem:
        return ctx.store.update(
            session.id,
            observed=False,
            observed_why=said(problem),
            next_try_at=timestamp(now() + RETRY),
        )
    except (Refused, Usage, NotFound, LocalFault, Corrupted) as problem:
        if image and problem.code == "snapshot-gone":
            snapshots.gone(ctx, image)
            return _create(ctx, session)
        return settle(ctx, session, State.FAILED, Reason.START_FAILED, None, f"{problem} [{problem.code}]", None)
    reach("start.created")
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
    most = ctx.loaded.config.local.max_sessions
    before = [
        other for other in ctx.store.live(session.provider) if other.handle is not None and other.id != session.id
    ]
    return f"waits for a free place: {len(before)} of {most} local sessions run" if len(before) >= most else ""


def _sandbox_spec(ctx: Context, session: Session) -> SandboxSpec:
    told = spec_of(session)
    kind = told.agent.kind
    secret = credentials.resolve(ctx) if kind == "claude" else credentials.NONE
    return SandboxSpec(
        name=session.id,
        sizes=session.sizes,
        timeout_s=session.timeout_s,
        tags={"parhelia": "1", "owner": ctx.owner, "task": session.task, "session": session.id},
        region=session.region,
        secrets=secret.secrets,
        image=found.image if (found := snapshots.ground(ctx, told.workspace.checkpoint)) else None,
        credential={**secret.values, **keys.make(ctx.home, session.id).for_sandbox(), **_key(ctx, told)},
    )


def _key(ctx: Context, told: Spec) -> dict[str, str]:
    """The key of encrypted checkpoints, for a session that takes such or may start from one."""
    if not (told.checkpoint.encrypt or told.workspace.checkpoint):
        return {}
    key = credentials.checkpoint_key(ctx, make=told.checkpoint.encrypt)
    return {CHECKPOINT_KEY: key.hex()} if key else {}


def deliver(ctx: Context, session: Session) -> Session:
    """Put the inputs, then the spec: its arrival is what the runner waits for.

    A sandbox that has ended had its delivery from somebody who could not note it, or never will: its files tell which.
    """
    sandbox = open_sandbox(ctx, session)
    if sandbox.poll() is not None:
        return ctx.store.update(session.id, delivered_at=timestamp())
    there = is_local(ctx, session)
    inputs = [(name, Path(path)) for name, path in session.sources or ()]
    inputs = [(name, path) for name, path in inputs if not there or path != ctx.task_dir(session.task) / name]
    total, sent = sum(path.stat().st_size for _, path in inputs if path.exists()), 0
    for name, path in inputs:
        sandbox.put(name, path, deadline=600, seen=_telling(ctx, session, sent, total))
        sent += path.stat().st_size
    reach("deliver.inputs")
    raw = dict(session.spec or {})
    raw["limits"] = {**raw["limits"], "deadline": timestamp(ends_at(session)), "paid_s": session.timeout_s}
    raw["workspace"] = {**raw["workspace"], "ground": snapshots.said(ctx, raw["workspace"].get("checkpoint"))}
    sandbox.put("spec.json", json.dumps(raw, ensure_ascii=False).encode())
    reach("deliver.spec")
    return ctx.store.update(session.id, delivered_at=timestamp())


def _telling(ctx: Context, session: Session, before: int, total: int) -> Callable[[int], None]:
    """Tell who waits how much has gone, and now and then everybody else, in the session's row."""
    stored = time.monotonic()

    def seen(count: int) -> None:
        nonlocal stored
        ctx.tell(Doing(SENDING, done=before + count, total=total))
        if time.monotonic() - stored > STORE_S:
            stored = time.monotonic()
            ctx.store.update(
                session.id,
                last_activity=f"{SENDING}: {size(before + count)} of {size(total)}",
                last_event_at=timestamp(),
            )

    return seen
