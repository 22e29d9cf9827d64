"""Everything about one task, as of its newest session or the one named."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import billing, budget, controller, follow
from parhelia_mcp.context import Context
from parhelia_mcp.model import State, dollars, timestamp
from parhelia_mcp.plain import clean, line
from parhelia_mcp.store import Session

MOST_CHECKPOINTS = 20


class Request(BaseModel, extra="forbid"):
    """Show one task."""

    id: Annotated[str, Field(description="Task or session, or the start of its id")]


class Result(BaseModel):
    task_id: str
    session_id: str
    state: str
    reason: str | None
    detail: str | None
    provider: str
    prompt: str | None
    command: list[str] | None
    gpu: str | None
    memory_gb: float | None
    cpu: float
    region: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    ends_by: str | None  # when its agent is ended and the work kept; the sandbox is gone by `deadline`
    deadline: str | None
    spent_usd: float
    reserved_usd: float
    provider_usd: float | None  # what the provider itself says its part cost, and when it said so; the ledger has ours
    provider_usd_at: str | None
    exit_code: int | None
    observed: bool
    observed_at: str | None
    observed_why: str | None
    kill_requested_at: str | None
    waiting_for: str | None
    last_activity: str | None
    last_event_at: str | None
    workspace_path: str | None
    checkpoints: list[dict[str, Any]]
    result: dict[str, Any] | None
    parent: str | None  # the session whose agent handed it on
    attach: str | None
    diagnosis: dict[str, Any] | None
    sessions: list[str]


def run(ctx: Context, request: Request) -> Result:
    return result(ctx, looked(ctx, request))


def looked(ctx: Context, request: Request) -> Session:
    """The session as it is now: a live one is moved on by the look."""
    session = ctx.store.find(request.id)
    if session.live:
        session = follow.advance(ctx, session)
        controller.ensure(ctx)
    billing.ask(ctx, session)
    return session


def result(ctx: Context, session: Session) -> Result:
    """What is known of a session, with where each remote fact stands."""
    task = ctx.store.task(session.task)
    spent = budget.account(ctx, session=session.id)
    billed = billing.billed(ctx, session=session.id)
    return Result(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        reason=str(session.reason) if session.reason else None,
        detail=clean(session.detail) if session.detail else None,
        provider=session.provider,
        prompt=clean(task.prompt) if task.prompt is not None else None,
        command=[clean(part) for part in task.command] if task.command else None,
        gpu=session.gpu,
        memory_gb=session.memory_gb or None,
        cpu=session.cpu,
        region=session.region,
        created_at=session.created_at,
        started_at=session.started_at,
        ended_at=session.ended_at,
        ends_by=timestamp(follow.ends_at(session)) if session.live and session.started_at else None,
        deadline=session.deadline,
        spent_usd=dollars(spent.spent),
        reserved_usd=dollars(spent.reserved),
        provider_usd=billed.usd if billed else None,
        provider_usd_at=billed.at if billed else None,
        exit_code=session.exit_code,
        observed=session.observed,
        observed_at=session.observed_at,
        observed_why=session.observed_why,
        kill_requested_at=session.kill_requested_at if session.live else None,
        waiting_for=clean(session.waiting_for) if session.waiting_for and session.state is State.WAITING else None,
        last_activity=line(session.last_activity or "") or None,
        last_event_at=session.last_event_at,
        workspace_path=_workspace(ctx, session),
        checkpoints=_checkpoints(ctx, session),
        result=dict(session.result) if session.result else None,
        parent=task.parent,
        attach=f"parhelia attach {session.task}" if session.live and session.handle else None,
        diagnosis=_diagnosis(ctx, session),
        sessions=[other.id for other in ctx.store.sessions(session.task)],
    )


def _checkpoints(ctx: Context, session: Session) -> list[dict[str, Any]]:
    """What was kept of the task up to this session, newest first, as far as it lies on this machine."""
    if not (ctx.task_dir(session.task) / "checkpoints" / "manifests").is_dir():
        return []
    from parhelia_mcp import task_checkpoints  # the store is read only where there is one
    from parhelia_mcp.verbs import checkpoint

    wanted = {"checkpoint_id", "session_id", "trigger", "created_at", "consistent", "pending_tool", "files", "bytes"}
    kept = task_checkpoints.of_session(ctx, session)[::-1]
    return [checkpoint.row(one).model_dump(include=wanted) for one in kept[:MOST_CHECKPOINTS]]


def _workspace(ctx: Context, session: Session) -> str | None:
    """Where the agent works, as a path inside the sandbox; locally that is a path of this machine."""
    return str(follow.open_sandbox(ctx, session).workspace) if session.handle else None


def _diagnosis(ctx: Context, session: Session) -> dict[str, Any] | None:
    """What is wrong, as far as a glance shows; nothing where nothing is."""
    if session.state is State.COMPLETED:
        return None
    from parhelia_mcp import diagnosis

    found = diagnosis.glance(ctx, session)
    return found.as_dict() if found else None
