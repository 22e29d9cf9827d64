"""Go on from a checkpoint: as the next session of the task, or in a directory of your own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import delegation, files, follow, sessions, task_checkpoints, task_limit, terms
from parhelia_mcp.checkpoint import create, restore, retention
from parhelia_mcp.checkpoint import session as parts
from parhelia_mcp.checkpoint.manifest import Facts, Manifest
from parhelia_mcp.checkpoint.store import Store
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Refused, Usage
from parhelia_mcp.model import Doing, now, session_id
from parhelia_mcp.spec import Spec, Workspace
from parhelia_mcp.store import Session
from parhelia_mcp.verbs import submit

BESIDE = ".parhelia"  # in a directory that a task was brought home to: what is not its files
CLIENT_TASKS = '"${CLAUDE_CONFIG_DIR:-$HOME/.claude}"/tasks'  # where Claude Code looks for task lists
ANYWHERE = "any"


class Request(BaseModel, extra="forbid"):
    """Continue a task from a checkpoint."""

    id: Annotated[str, Field(description="Task or session")]
    checkpoint_id: Annotated[str | None, Field(description="Default: the newest that verifies")] = None
    target: Annotated[str | None, Field(description="Restore into this directory instead of starting a session")] = None
    force: bool = False
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False)] = None
    gpu: str | None = None
    region: str | None = None
    max_usd: Annotated[
        float | None,
        Field(ge=0, le=1e9, allow_inf_nan=False, description="Most it may spend, whatever was spent before"),
    ] = None
    message: str | None = None


class Result(BaseModel):
    task_id: str
    session_id: str | None
    state: str
    checkpoint_id: str | None
    reserved_usd: float
    estimate_usd: float
    remaining_usd: float
    target: str | None = None
    files: int | None = None
    saved: str | None = None
    lowered: list[str] = []
    next: str
    note: str | None = None

    @property
    def as_submitted(self) -> submit.Result:
        names = submit.Result.model_fields
        return submit.Result(**{name: value for name, value in self.model_dump().items() if name in names})


def run(ctx: Context, request: Request, *, by_person: bool = False) -> Result:
    """Continue the task, or bring it to `target`. Only a person goes past the task's own limit.

    Raises Busy `session-live`, NotFound `no-checkpoint`, Corrupted with the last good one, Refused over budget.
    """
    session = ctx.store.find(request.id)
    if session.live:
        session = follow.advance(ctx, session)
    if session.live and not request.target:
        raise Busy(
            "session-live",
            f"{session.id} is {session.state}; it is not resumed while it lives.",
            f'parhelia send {session.task} "...", or parhelia session kill {session.task}',
        )
    session, chosen = _chosen(ctx, session, request.checkpoint_id)
    if request.target:
        return _home(ctx, session, chosen, Path(request.target), request.force)
    wanted = request.model_dump(include={"memory", "gpu", "region", "max_usd", "message"})
    return start(ctx, session, chosen, **wanted, by_person=by_person)


def _chosen(ctx: Context, session: Session, wanted: str | None) -> tuple[Session, Manifest]:
    if wanted is None:
        return session, task_checkpoints.newest(ctx, session)
    owner, found = task_checkpoints.find(ctx, wanted)
    if owner.task != session.task:
        raise Usage(
            "other-task",
            f"{found.id} is of {owner.task}, not of {session.task}; nothing was started.",
            f'parhelia submit --from-checkpoint {found.id} "..."',
        )
    return session, found


def start(
    ctx: Context,
    session: Session,
    chosen: Manifest | None,
    *,
    memory: float | None = None,
    gpu: str | None = None,
    region: str | None = None,
    max_usd: float | None = None,
    message: str | None = None,
    by_person: bool = False,
) -> Result:
    """The next session of the task, at the same path: from this checkpoint, or from the files the task was given."""
    ctx.config  # noqa: B018 - nothing starts on a broken configuration
    latest = ctx.store.newest(session.task)
    task = ctx.store.task(session.task)
    number = latest.number + 1
    sizes = terms.sizes_for(ctx, task.provider, latest.cpu, memory or latest.memory_gb or None, gpu or latest.gpu)
    region = placed(latest, region)
    before = follow.spec_of(latest)
    agent = terms.agent_for(
        ctx,
        task.provider,
        command=task.command,
        model=before.agent.model,
        interactive=before.agent.interactive,
        depth=delegation.depth(ctx, task),
    )
    given = _from_checkpoint(before, chosen) if chosen else _from_the_start(ctx, task.id, number)
    agent = replace(
        agent,
        resume=given.talk is not None,
        session_id=given.talk or agent.session_id,
        interactive=before.agent.interactive,
    )
    directory = files.private_dir(ctx.session_dir(task.id, number))
    may = task_limit.next_session(ctx, latest, sizes, region, by_person=by_person, max_usd=max_usd)
    agent, carried = sessions.configured(ctx, agent, task.repository or task.source, directory, may.cost)
    spec = Spec(
        task=task.id,
        session=session_id(task.id, number),
        workspace=given.workspace,
        sizes=sizes._asdict(),
        limits=terms.limits_for(sizes, may.max_usd, may.cost, agent),
        agent=agent,
        checkpoint=terms.policy_for(ctx),
        prompt=task.prompt,
        command=task.command,
        region=region,
        message=message or given.message,
        prices=dict(ctx.loaded.config.prices),
    )
    asked = sessions.Asked(sizes, region, may.timeout_s, may.max_usd, may.cost)
    made = sessions.create(ctx, task, number, spec, [*given.sources, *carried], asked, new_task=False)
    started = submit.launch(ctx, made)
    small = task_limit.too_small(ctx, agent.model, may.cost.tokens) if agent.kind == "claude" else None
    note = "; ".join(filter(None, (_silent(before, chosen), may.note, small, started.note))) or None
    return Result(**{**started.model_dump(), "note": note}, checkpoint_id=chosen.id if chosen else None)


def _silent(before: Spec, chosen: Manifest | None) -> str | None:
    """What a person has to know of an agent that goes on without its conversation."""
    if before.agent.kind != "claude" or chosen is None or chosen.agent.transcript:
        return None
    return f"{chosen.id} holds no conversation: its files are back, and the agent begins anew with the task's words"


def placed(before: Session, region: str | None) -> str | None:
    """The region of the session after `before`: the same where none is named, the provider's choice for `any`."""
    return before.region if region is None else None if region == ANYWHERE else region


@dataclass(frozen=True, slots=True)
class _Given:
    """What the next session starts from; `talk` is the conversation it continues."""

    workspace: Workspace
    sources: list[tuple[str, str]]
    talk: str | None
    message: str | None = None


def _from_checkpoint(before: Spec, chosen: Manifest) -> _Given:
    talk = chosen.agent.session_id if chosen.agent.transcript else None
    return _Given(replace(before.workspace, inputs=(), checkpoint=chosen.hash), [], talk)


def _from_the_start(ctx: Context, task: str, number: int) -> _Given:
    """What the first session was given, again, but for the configuration. Raises Refused `inputs-gone`."""
    first = ctx.store.session(session_id(task, 1))
    told = follow.spec_of(first)
    theirs = told.agent.configuration
    sources = []
    for name, path in first.sources or ():
        if theirs and name == f"sessions/1/{theirs.archive}":
            continue
        kept = next((each for each in (ctx.task_dir(task) / name, Path(path)) if each.exists()), None)
        if kept is None:
            raise Refused(
                "inputs-gone",
                f"{path}, which {task} was given, is no longer there; nothing was started.",
                "submit it again from its directory",
            )
        sources.append((name.replace("sessions/1/", f"sessions/{number}/", 1), str(kept)))
    talk = told.agent.session_id if told.agent.resume else None
    return _Given(told.workspace, sources, talk, told.message)


def _home(ctx: Context, session: Session, chosen: Manifest, target: Path, force: bool) -> Result:
    """Files and conversation into a directory of the user's, and the command that continues there."""
    target = _place(ctx, target)
    store = task_checkpoints.mirrored(ctx, session, packs=True)
    saved = _save_first(ctx, store, session, target) if force else None
    done = restore.restore(
        store,
        chosen,
        target,
        force=force,
        progress=lambda count, size: ctx.tell(Doing("restoring", count, size, chosen.bytes)),
    )
    command = f"cd {shlex.quote(str(target))}{_conversation(store, chosen, target)}"
    kept = " and ".join(part for part in (saved and f"checkpoint {saved}", done.saved and str(done.saved)) if part)
    return Result(
        task_id=session.task,
        session_id=None,
        state="restored",
        checkpoint_id=chosen.id,
        reserved_usd=0,
        estimate_usd=0,
        remaining_usd=submit.remaining(ctx),
        target=str(target),
        files=done.files,
        saved=kept or None,
        lowered=list(done.lowered[:50]),
        next=command,
        note="conversation restored beside the files"
        if chosen.agent.transcript
        else "no conversation in this checkpoint",
    )


def _place(ctx: Context, named: Path) -> Path:
    """Where `named` leads to. Raises Usage or Refused `bad-target` for no path, and for one to Parhelia's own files."""
    try:
        target = ctx.cwd / named.expanduser()
        real = target.resolve()
    except (OSError, RuntimeError, ValueError) as problem:
        raise Usage(
            "bad-target",
            f"{str(named)[:80]!r} is no directory: {problem}; nothing was touched.",
            "name another directory",
        ) from None
    if ctx.home in (real, *real.parents) or real in ctx.home.parents:
        raise Refused(
            "bad-target",
            f"{target} holds, or lies in, Parhelia's own files; nothing was touched.",
            "name another directory",
        )
    return target


def _conversation(store: Store, chosen: Manifest, target: Path) -> str:
    """Put the conversation and its task list beside the files; how the command goes on that continues them.

    The client looks for a task list in its own directory alone. That is the user's: they copy it, not we.
    """
    if not chosen.agent.transcript:
        return ""
    talk = restore.restore(store, chosen, target / BESIDE / "conversation", part="conversation", force=True)
    transcript = talk.target / Path(chosen.agent.transcript).name
    copy = ""
    if parts.has_tasks(store, chosen):
        restore.restore(store, chosen, target / BESIDE / "tasks" / transcript.stem, part=parts.TASKS, force=True)
        copy = f" && mkdir -p {CLIENT_TASKS} && cp -R {BESIDE}/tasks/. {CLIENT_TASKS}"
    _keep_out_of_git(target)
    return f"{copy} && claude --resume {shlex.quote(str(transcript))}"


def _save_first(ctx: Context, store: Store, session: Session, target: Path) -> str | None:
    """What a forced restore is about to replace, as a checkpoint of its own."""
    if not target.is_dir() or not any(target.iterdir()):
        return None
    facts = Facts(
        trigger="safety",
        task=session.task,
        session=session.id,
        expires_at=retention.expires_at("safety", now(), terms.policy_for(ctx)),
    )
    return create.create(
        store,
        [create.Source("workspace", target)],
        facts,
        progress=lambda count, size: ctx.tell(Doing("saving what is there", count, size)),
    ).id


def _keep_out_of_git(target: Path) -> None:
    info = target / ".git" / "info"
    if info.is_dir():
        exclude = info / "exclude"
        text = exclude.read_text() if exclude.exists() else ""
        if "/.parhelia/" not in text.splitlines():
            exclude.write_text(text.rstrip("\n") + ("\n" if text else "") + "/.parhelia/\n")
