"""Hand a task to a separate session."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import budget, controller, files, follow, sessions, task_limit, terms, workspace
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused, Usage
from parhelia_mcp.model import Reason, State, dollars, new_task_id, session_id, timestamp
from parhelia_mcp.spec import Agent, Spec, Workspace
from parhelia_mcp.store import Session, Task

ANSWER_S = 2.0  # what the provider gets to refuse, before the answer is "pending"
LONGEST_PROMPT = 2_000_000
KNOWN = "this idempotency key was used before; nothing new was started"


class Request(BaseModel, extra="forbid"):
    """Start a separate agent (or command) on a copy of the workspace; returns at once with ids."""

    prompt: Annotated[
        str | None, Field(description="What the agent shall do; it sees the files, not this conversation")
    ] = None
    command: Annotated[list[str] | None, Field(description="Run this argv instead of an agent")] = None
    workspace: Annotated[
        str | None, Field(description="Directory to copy, with uncommitted work; default: the current one")
    ] = None
    gpu: Annotated[str | None, Field(description="GPU type, e.g. A10G, H100")] = None
    cpu: Annotated[float | None, Field(gt=0, le=512, allow_inf_nan=False, description="Cores")] = None
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False, description="GiB, a limit")] = None
    timeout_hours: Annotated[
        float | None, Field(gt=0, le=720, allow_inf_nan=False, description="The session ends then")
    ] = None
    max_usd: Annotated[
        float | None, Field(ge=0, le=1e9, allow_inf_nan=False, description="Most it may spend, compute and tokens")
    ] = None
    provider: Annotated[str | None, Field(description="local or modal")] = None
    region: Annotated[str | None, Field(description="Region on modal, e.g. us-west")] = None
    model: Annotated[str | None, Field(description="Model of the agent")] = None
    interactive: bool = False
    from_checkpoint: Annotated[str | None, Field(description="Start from this checkpoint (cp-...)")] = None
    to: Annotated[
        str | None, Field(description="Say the prompt to this task instead: sent when live, resumed when ended")
    ] = None
    idempotency_key: Annotated[
        str | None, Field(min_length=1, max_length=200, description="Same key, same task: safe to retry")
    ] = None
    dry_run: bool = False


class Result(BaseModel):
    task_id: str | None
    session_id: str | None
    state: str
    reserved_usd: float
    estimate_usd: float
    remaining_usd: float
    next: str
    note: str | None = None


def run(ctx: Context, request: Request, *, agreed: int = 0, by_person: bool = False) -> Result:
    """Pack, reserve, store, start. After the reservation everything is `follow.advance`, by whoever comes.

    `agreed`: the micro-dollars that a person lets the ceiling rise by for this.
    """
    settings = ctx.config
    if request.to:
        return _say(ctx, request, by_person)
    _one_job(request)
    if request.idempotency_key and (known := ctx.store.by_key(request.idempotency_key)):
        return _again(ctx, request, known)
    provider = request.provider or settings.provider
    asked = _asked(ctx, request, provider, agreed)
    note = _notes(_shorter(ctx, request, asked), _small(ctx, request, asked))
    if request.dry_run:
        return _estimate(ctx, provider, asked, note)
    agent = terms.agent_for(
        ctx, provider, command=request.command, model=request.model, interactive=request.interactive
    )
    task_id = new_task_id()
    session = _store(ctx, request, task_id, provider, asked, agent)
    if session.task != task_id:
        sessions.forget(ctx, task_id)
        return _again(ctx, request, ctx.store.task(session.task))
    started = launch(ctx, session)
    return started.model_copy(update={"note": _notes(note, started.note)})


def _again(ctx: Context, request: Request, known: Task) -> Result:
    """The task that this key started. Raises Refused `key-reused` where something else is asked for now."""
    asked = {"prompt": request.prompt, "command": tuple(request.command) if request.command else None, **_kept(request)}
    was = {"prompt": known.prompt, "command": known.command, **known.request}
    names = (asked.keys() | was.keys()) - {"workspace", "dry_run"}
    other = sorted(name for name in names if asked.get(name) != was.get(name))
    if not request.from_checkpoint and known.source != str(_source(ctx, request).resolve()):
        other.append("workspace")
    if other:
        raise Refused(
            "key-reused",
            f"The idempotency key {request.idempotency_key!r} started {known.id}, which was asked for with another"
            f" {', '.join(other)}; nothing was started.",
            f"another --idempotency-key; parhelia task show {known.id}",
        )
    return answer(ctx, ctx.store.newest(known.id), note=KNOWN)


def _kept(request: Request) -> dict[str, Any]:
    """What the task's row keeps of its request beside the prompt or command."""
    return request.model_dump(exclude_none=True, exclude={"prompt", "command"})


def _small(ctx: Context, request: Request, asked: sessions.Asked) -> str | None:
    """A warning where an agent's tokens may not pay for its first request."""
    if request.command is not None:
        return None
    return task_limit.too_small(ctx, request.model or ctx.config.agent.model, asked.cost.tokens)


def _notes(*notes: str | None) -> str | None:
    return "; ".join(filter(None, notes)) or None


def shortfall(ctx: Context, request: Request) -> tuple[int, Refused] | None:
    """What the ceiling lacks for this request in micro-dollars and the refusal that `run` would meet; None where it fits."""
    if request.to or request.idempotency_key and ctx.store.by_key(request.idempotency_key):
        return None
    _one_job(request)
    provider = request.provider or ctx.config.provider
    return sessions.shortfall(ctx, provider, _asked(ctx, request, provider, 0))


def _asked(ctx: Context, request: Request, provider: str, agreed: int) -> sessions.Asked:
    section = ctx.config.modal
    sizes = terms.sizes_for(ctx, provider, request.cpu, request.memory, request.gpu, check_gpu=not request.dry_run)
    region = request.region or section.region if provider == "modal" else None
    tokens = request.command is None
    timeout_s = (
        request.timeout_hours * 3600
        if request.timeout_hours
        else sessions.unasked_time(ctx, provider, sizes, region, request.max_usd, tokens)
    )
    cost = sessions.worst_case(ctx, provider, sizes, region, timeout_s, request.max_usd, tokens)
    life_s = sessions.life(ctx, provider, timeout_s)
    return sessions.Asked(sizes, region, life_s, request.max_usd, cost, agreed, timeout_s - life_s)


def _shorter(ctx: Context, request: Request, asked: sessions.Asked) -> str | None:
    """What to say of a time limit that money made shorter than the default."""
    default, hours = ctx.config.modal.default_timeout_hours, (asked.timeout_s + asked.left_s) / 3600
    if request.timeout_hours or hours >= default:
        return None
    return f"its money pays for {hours:g} h, not for the usual {default:g}; then it ends by itself"


def _one_job(request: Request) -> None:
    if (request.prompt is None) == (request.command is None):
        raise Usage(
            "nothing-to-do",
            "Give a prompt or a command, one of them; nothing was started.",
            'parhelia submit "Add tests for the parser"',
        )
    if request.prompt is not None and not request.prompt.strip():
        raise Usage(
            "empty-prompt", "The prompt is empty; nothing was started.", 'parhelia submit "Add tests for the parser"'
        )
    if request.prompt is not None and len(request.prompt) > LONGEST_PROMPT:
        raise Usage(
            "prompt-too-long",
            f"The prompt has {len(request.prompt):,} characters, {LONGEST_PROMPT:,} at most; nothing was started.",
            "put it into a file of the workspace and name the file",
        )
    if request.command is not None and (not request.command or not request.command[0]):
        raise Usage("empty-command", "The command is empty; nothing was started.", "parhelia run -- pytest -q")
    if any("\0" in part for part in (request.prompt or "", *(request.command or ()))):
        raise Usage(
            "nul-character", "A prompt or command cannot hold a NUL character; nothing was started.", "remove it"
        )


def _store(
    ctx: Context,
    request: Request,
    task_id: str,
    provider: str,
    asked: sessions.Asked,
    agent: Agent,
) -> Session:
    """Gather the files, then store and reserve in one transaction; a refusal leaves nothing behind."""
    directory = files.private_dir(ctx.session_dir(task_id, 1))
    try:
        given = (
            _fork(ctx, request.from_checkpoint, task_id) if request.from_checkpoint else _pack(ctx, request, directory)
        )
        agent, carried = sessions.configured(ctx, agent, given.repository or given.source, directory, asked.cost)
        command = tuple(request.command) if request.command else None
        task = Task(
            id=task_id,
            created_at=timestamp(),
            prompt=request.prompt,
            command=command,
            provider=provider,
            source=given.source,
            repository=given.repository,
            idempotency_key=request.idempotency_key,
            request=_kept(request),
        )
        spec = Spec(
            task=task_id,
            session=session_id(task_id, 1),
            workspace=given.workspace,
            sizes=asked.sizes._asdict(),
            limits=replace(terms.limits_for(asked.sizes, request.max_usd, asked.cost, agent), left_s=asked.left_s),
            agent=replace(agent, session_id=given.talk or agent.session_id, resume=given.talk is not None),
            checkpoint=terms.policy_for(ctx),
            prompt=request.prompt,
            command=command,
            region=asked.region,
            message=request.prompt if given.talk else None,
            prices=dict(ctx.loaded.config.prices),
        )
        return sessions.create(ctx, task, 1, spec, [*given.sources, *carried], asked, new_task=True)
    except BaseException:
        sessions.forget(ctx, task_id)
        raise


@dataclass(frozen=True, slots=True)
class _Given:
    """What a first session starts from; `sources` are (path below the task's directory, file here)."""

    workspace: Workspace
    sources: list[tuple[str, str]]
    source: str | None
    repository: str | None
    talk: str | None = None  # the id of a conversation that comes along


def _pack(ctx: Context, request: Request, directory: Path) -> _Given:
    source = _source(ctx, request)
    if ctx.home.resolve() in (real := source.resolve(), *real.parents):
        raise Refused(
            "workspace-is-ours",
            f"{source} lies in Parhelia's own files ({ctx.home}); nothing was started.",
            "--workspace DIR, a directory of your own; a task's work comes home with parhelia pull ID",
        )
    packed = workspace.pack(source, directory, cache=files.private_dir(ctx.home / "repos"))
    sources = [(f"sessions/1/{name}", str(path)) for name, path in packed.sources]
    repository = str(packed.repository) if packed.repository else None
    return _Given(packed.workspace, sources, str(source.resolve()), repository)


def _source(ctx: Context, request: Request) -> Path:
    return ctx.cwd / Path(request.workspace).expanduser() if request.workspace else ctx.cwd


def _fork(ctx: Context, checkpoint: str, task_id: str) -> _Given:
    """A checkpoint of another task as the start of this one, in a store of its own; the original is not touched."""
    from parhelia_mcp import task_checkpoints

    session, found = task_checkpoints.find(ctx, checkpoint)
    origin = ctx.store.task(session.task)
    sources = task_checkpoints.copied(ctx, session, found, task_id)
    begun = replace(follow.spec_of(session).workspace, inputs=(), checkpoint=found.hash)
    talk = found.agent.session_id if found.agent.transcript else None
    return _Given(begun, sources, origin.source, origin.repository, talk)


def launch(ctx: Context, session: Session) -> Result:
    """Give the provider its two seconds, leave the rest to the controller. Raises what the provider definitely refused."""
    began = time.monotonic()
    session = follow.advance(ctx, session)
    controller.ensure(ctx)
    while session.live and session.handle is None and not session.observed_why and time.monotonic() - began < ANSWER_S:
        time.sleep(0.05)
        session = ctx.store.session(session.id)
    if session.state is State.FAILED and session.reason is Reason.START_FAILED:
        raise Refused(
            "start-failed",
            f"{session.id} did not start and its reservation was released: {session.detail}",
            f"parhelia task show {session.task}",
        )
    return answer(ctx, session, note=budget.warning(ctx, budget.standing(ctx)))


def answer(ctx: Context, session: Session, note: str | None = None) -> Result:
    """What submit says of a session."""
    held = budget.account(ctx, session=session.id)
    if session.live and session.handle is None and session.observed_why:
        note = session.observed_why
    return Result(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        reserved_usd=dollars(held.reserved),
        estimate_usd=dollars(session.tokens_micro + follow.reserve_for(session.rate_micro, session.timeout_s)),
        remaining_usd=dollars(budget.standing(ctx).remaining),
        next=f"parhelia logs {session.task} --follow",
        note=note,
    )


def remaining(ctx: Context) -> float:
    """Dollars left under the ceiling."""
    return dollars(budget.standing(ctx).remaining)


def _estimate(ctx: Context, provider: str, asked: sessions.Asked, note: str | None) -> Result:
    absent = asked.sizes.gpu and terms.gpu_refusal(ctx, provider, asked.sizes.gpu)
    refusal, total = absent or sessions.refusal(ctx, provider, asked), asked.cost.total + asked.cost.later
    return Result(
        task_id=None,
        session_id=None,
        state="dry-run",
        reserved_usd=0,
        estimate_usd=dollars(total),
        remaining_usd=dollars(budget.standing(ctx).remaining - total),
        next=refusal.hint if refusal else "run it without --dry-run",
        note=f"this would be refused: {refusal.message}" if refusal else note,
    )


def _say(ctx: Context, request: Request, by_person: bool) -> Result:
    """`--to`: the prompt is a message to a task that lives."""
    from parhelia_mcp.verbs import send

    session = ctx.store.find(request.to or "")
    if request.prompt is None:
        raise Usage("nothing-to-say", "--to needs a prompt; nothing was sent.", f'parhelia send {session.task} "..."')
    if not session.live:
        from parhelia_mcp.verbs import resume

        again = resume.Request(id=session.id, message=request.prompt)
        return resume.run(ctx, again, by_person=by_person).as_submitted
    allow = {"allow": True, "deny": False}.get(request.prompt.strip())
    send.run(ctx, send.Request(id=session.id, allow=allow, message=request.prompt if allow is None else None))
    return answer(ctx, ctx.store.session(session.id), note="the message was delivered")
