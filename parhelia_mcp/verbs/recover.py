"""Say what is wrong with a task, what would bring it back and at what price; and do it when told to."""

from __future__ import annotations

import shlex
import time
from contextlib import nullcontext, suppress
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from parhelia_mcp import diagnosis, files, follow, locks, prices, task_checkpoints, task_limit, terms
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.context import Context
from parhelia_mcp.diagnosis import Diagnosis
from parhelia_mcp.errors import Busy, Problem, Refused, Unreachable
from parhelia_mcp.failpoint import reach
from parhelia_mcp.model import Reason, State, dollars
from parhelia_mcp.store import Session
from parhelia_mcp.verbs import kill, resume
from parhelia_mcp.verbs.recovery import Plan, Result

Action = Literal["diagnose", "resume", "restart", "kill"]
END_S = 20.0  # what a session that is to be recovered gets to keep its work and end
ELSEWHERE = frozenset({"gpu-scarce", "region-unavailable", "no-capacity"})


class Request(BaseModel, extra="forbid"):
    """Diagnose a task that is stuck, failed or lost, and bring it back."""

    id: Annotated[str, Field(description="Task or session")]
    action: Annotated[Action | None, Field(description="Without it: only say what would be done")] = None
    from_checkpoint: Annotated[str | None, Field(description="Default: the newest that verifies")] = None
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False)] = None
    gpu: str | None = None
    region: str | None = None


def run(ctx: Context, request: Request, *, agreed: bool = False, by_person: bool = False) -> Result:
    """Diagnose; act where an action is named, or `agreed` lets the diagnosis choose it. Only a person starts what was killed.

    Raises Busy while another recovery of the task runs, Refused for a killed session that nobody named an action for, a
    crash loop, and what the budget does not allow; Unreachable where the old session cannot be ended.
    """
    session = ctx.store.find(request.id)
    if request.action == "diagnose" or (request.action is None and not agreed):
        return look(ctx, session, request, by_person)
    lock = files.private_dir(ctx.task_dir(session.task)) / "recover.lock"
    with locks.exclusive(lock, what=f"the recovery of {session.task}"):
        session = ctx.store.session(session.id)
        found = diagnosis.study(ctx, session)
        session = ctx.store.session(session.id)
        _allowed(ctx, session, found, request, by_person)
        return _act(ctx, session, found, request, by_person)


def exit_code(result: Result) -> int:
    """0 where nothing is wrong or it was brought back; 1 for a task that has failed still."""
    return 1 if result.state in (State.FAILED, State.LOST) and result.did in ("nothing", "looked") else 0


def look(ctx: Context, session: Session, request: Request, by_person: bool) -> Result:
    """The diagnosis and the plan; nothing is changed."""
    found = diagnosis.study(ctx, session)
    session = ctx.store.session(session.id)
    plan = None
    if not found.well:
        with nullcontext() if _sized(request) else suppress(Problem):  # what cannot be planned unasked is not offered
            chosen = _start_from(ctx, session, found.action, request.from_checkpoint)
            plan = _plan(ctx, session, found, request, found.action or "resume", chosen, by_person)
    next = (
        f"parhelia recover {session.task} --action {plan.action}{_sized(request)}" if plan and _sized(request) else None
    )
    return _result(session, found, plan, "looked", next)


def _act(ctx: Context, session: Session, found: Diagnosis, request: Request, by_person: bool) -> Result:
    action = request.action or found.action
    if action is None:
        return _result(session, found, None, "nothing")
    if action == "kill":
        ended = kill.run(ctx, kill.Request(id=session.id))
        return _result(ctx.store.session(ended.session_id), found, None, "killed it", f"parhelia pull {session.task}")
    if session.live:
        _plan(
            ctx, session, found, request, action, None, by_person
        )  # what is refused is refused before anything is ended
        session = _end(ctx, session, found)
    reach("recover.ended")
    chosen = _start_from(ctx, session, action, request.from_checkpoint)
    plan = _plan(ctx, session, found, request, "resume" if chosen else "restart", chosen, by_person)
    reach("recover.planned")
    sizes = {"memory": plan.memory_gb, "gpu": plan.gpu, "region": plan.region}
    made = resume.start(ctx, session, chosen, **sizes, by_person=by_person)
    new = ctx.store.session(made.session_id or "")
    start = f"from {chosen.id}" if chosen else "from the files it was given"
    return _result(new, found, plan, f"started {new.id} {start}", f"parhelia logs {new.task} --follow")


def _allowed(ctx: Context, session: Session, found: Diagnosis, request: Request, by_person: bool) -> None:
    if session.number != ctx.store.newest(session.task).number:
        raise Refused(
            "not-newest", f"{session.id} is not the newest session of its task.", f"parhelia recover {session.task}"
        )
    if session.state is State.KILLED and (request.action is None or not by_person):
        raise Refused(
            "killed",
            f"{session.id} was killed, and a killed session is started again only by a person who says how. Nothing was done.",
            f"parhelia resume {session.task}",
        )
    if found.cause == "crash-loop" and request.action is None:
        raise Refused("crash-loop", f"{found.what} Nothing was started.", found.next)
    if session.live and found.well and request.action in ("resume", "restart"):
        raise Busy(
            "session-live",
            f"{session.id} is {session.state} and nothing speaks against it; it is not recovered while it lives.",
            f"parhelia session kill {session.task}",
        )


def _end(ctx: Context, session: Session, found: Diagnosis) -> Session:
    """End what is left of a session, with its work kept where its runner can still do it; not as a kill."""
    detail = f"ended to be recovered: {found.cause}"
    if session.handle is None:
        session = follow.abandon(ctx, session, detail)
    if session.handle is not None and session.live:
        sandbox = follow.open_sandbox(ctx, session)
        stop = {"state": str(State.FAILED), "reason": str(Reason.NO_PROGRESS), "detail": detail, "grace_s": 3}
        try:
            sandbox.control({"id": "recover", "op": "stop", "args": stop}, deadline=2)
            session = _settled(ctx, session, END_S)
        except Unreachable:
            sandbox.terminate()
        if session.live:
            sandbox.terminate()
            session = _settled(ctx, session, END_S)
    if session.live:
        raise Unreachable(
            "not-ended",
            f"{session.id} could not be ended ({session.observed_why or 'it still runs'}), so nothing was started.",
            f"parhelia recover {session.task} --yes",
        )
    return session


def _settled(ctx: Context, session: Session, within_s: float) -> Session:
    deadline = time.monotonic() + within_s
    while session.live and time.monotonic() < deadline:
        session = follow.advance(ctx, session)
        if session.live:
            time.sleep(0.05)
    return session


def _start_from(ctx: Context, session: Session, action: str | None, wanted: str | None) -> Manifest | None:
    """The checkpoint to go on from; None to start again. Raises NotFound, Corrupted for one that is not whole."""
    if wanted:
        _, found = task_checkpoints.find(ctx, wanted)
        task_checkpoints.require(ctx, session, found)
        return found
    if action == "restart":
        return None
    try:
        return task_checkpoints.newest(ctx, session)
    except Problem as problem:
        if problem.code != "no-checkpoint":
            raise
        return None


def _plan(
    ctx: Context,
    session: Session,
    found: Diagnosis,
    request: Request,
    action: str,
    chosen: Manifest | None,
    by_person: bool,
) -> Plan:
    """Raises Refused where the next session may not have these sizes, or not cost what it would."""
    starved = session.reason is Reason.OUT_OF_MEMORY or found.cause == "out-of-memory"
    memory = request.memory or (_more(session) if starved else None)
    gpu = request.gpu or (_other_gpu(ctx, session) if found.cause == "gpu-scarce" else None)
    region = request.region or (_elsewhere(ctx, session) if found.cause in ELSEWHERE else None)
    sizes = terms.sizes_for(ctx, session.provider, session.cpu, memory or session.memory_gb, gpu or session.gpu)
    cost = task_limit.next_session(ctx, session, sizes, resume.placed(session, region), by_person=by_person).cost
    kept, lost = _stakes(session, found, action, chosen)
    return Plan(
        action=action,
        from_checkpoint=chosen.id if chosen else None,
        kept=kept,
        lost=lost,
        cost_usd=dollars(cost.total),
        memory_gb=memory,
        gpu=gpu,
        region=region,
    )


def _stakes(session: Session, found: Diagnosis, action: str, chosen: Manifest | None) -> tuple[str, str]:
    """What is kept and what is lost, in words."""
    control, since = found.facts.get("control"), found.facts.get("since_checkpoint_s")
    if session.live and control and control.value == "answers" and action != "restart":
        return "everything: a checkpoint is taken before it is ended", "nothing"
    if chosen is None:
        return "the files it was given", "all that it did; its files so far stay on the disk beside the new ones"
    seconds = since.value if since and since.failed is None else 0
    lost = f"what was done in the last {seconds} s" if seconds else "nothing"
    return f"files and conversation as of {chosen.created_at}", lost


def _more(session: Session) -> float | None:
    return session.memory_gb * 2 if session.memory_gb else None


def _other_gpu(ctx: Context, session: Session) -> str | None:
    """The next cheaper GPU that the provider has, else the next dearer one."""
    offered = [name for name in prices.GPU if name in ctx.provider(session.provider).properties.gpus]
    wanted = (session.gpu or "").partition(":")[0]
    if wanted not in offered or len(offered) < 2:
        return None
    at = offered.index(wanted)
    return offered[at - 1] if at else offered[1]


def _elsewhere(ctx: Context, session: Session) -> str | None:
    """The region that the settings name now, where it is another, else any."""
    named = ctx.loaded.config.modal.region
    return (named if named and named != session.region else resume.ANYWHERE) if session.region else None


def _sized(request: Request) -> str:
    """The sizes that were asked for, as options of the command line."""
    given = {"memory": request.memory and f"{request.memory:g}", "gpu": request.gpu, "region": request.region}
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)


def _result(session: Session, found: Diagnosis, plan: Plan | None, did: str, next: str | None = None) -> Result:
    said = found.as_dict()
    said["next"] = next or said["next"]
    choices = [] if found.well else ["resume", "restart", *(["kill"] if session.live else [])]
    return Result(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        plan=plan,
        choices=choices,
        did=did,
        **said,
    )
