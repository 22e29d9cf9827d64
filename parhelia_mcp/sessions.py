"""Make a session: the one function that submit, resume and recover call. Its transaction is the only way to spend."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from parhelia_mcp import billing, budget, files, follow, prices
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Problem, Refused
from parhelia_mcp.failpoint import reach
from parhelia_mcp.model import Sizes, State, dollars, micro, session_id, timestamp
from parhelia_mcp.spec import Agent, Spec
from parhelia_mcp.store import Session, Task

SHORTEST_H = 0.05  # a shorter session is not worth proposing
LEAST_UNASKED_H = 0.25  # a default time is not shortened to less, but refused
LEAST_TOKENS = 10_000  # micro-dollars: an agent with less could not make one request


@dataclass(frozen=True, slots=True)
class Cost:
    """The worst case of a session in micro-dollars: what is reserved."""

    rate: int  # an hour of compute
    compute: int
    tokens: int
    later: int = 0  # compute of the sessions that follow where the task outlives its sandbox; they reserve it

    @property
    def total(self) -> int:
        return self.compute + self.tokens


def worst_case(
    ctx: Context, provider: str, sizes: Sizes, region: str | None, timeout_s: float, max_usd: float | None, tokens: bool
) -> Cost:
    """What the session can cost at most, of a task that may run for `timeout_s`.

    Raises Refused `over-task-limit` where compute alone is more than its limit.
    """
    settings = ctx.loaded.config
    limit = micro(settings.budget.per_task_usd if max_usd is None else max_usd)
    rate = prices.compute_rate_micro_per_hour(provider, sizes, region, billing.prices_for(ctx, provider))
    compute = follow.reserve_for(rate, timeout_s)
    first = follow.reserve_for(rate, life(ctx, provider, timeout_s))
    if compute > limit or (tokens and limit - compute < LEAST_TOKENS):
        hours = limit / rate if rate else timeout_s / 3600
        raise Refused(
            "over-task-limit",
            f"{timeout_s / 3600:g} h of compute cost up to ${dollars(compute):.2f} and this task may spend ${dollars(limit):.2f}"
            f"{' on compute and tokens together' if tokens else ''}. Nothing was reserved.",
            f"--timeout-hours {max(hours * 0.8, 0.01):.2f}, or --max-usd {dollars(compute) * 1.25 + (1 if tokens else 0):.2f}, or a smaller size",
        )
    return Cost(rate, first, limit - compute if tokens else 0, compute - first)


def unasked_time(
    ctx: Context, provider: str, sizes: Sizes, region: str | None, max_usd: float | None, tokens: bool
) -> float:
    """Seconds for a session that nobody named a time for: the default, or as long as its money lasts where that is less.

    A fifth of the money stays for an agent's requests.
    """
    settings = ctx.loaded.config
    default = settings.modal.default_timeout_hours
    limit = micro(settings.budget.per_task_usd if max_usd is None else max_usd)
    rate = prices.compute_rate_micro_per_hour(provider, sizes, region, billing.prices_for(ctx, provider))
    lasts = (limit * 4 // 5 if tokens else limit) / rate if rate else default
    return (min(default, int(lasts * 100) / 100) if lasts >= LEAST_UNASKED_H else default) * 3600


def life(ctx: Context, provider: str, timeout_s: float) -> float:
    """How much of `timeout_s` one sandbox can live."""
    longest = ctx.provider(provider).properties.max_lifetime_hours
    return timeout_s if longest is None else min(timeout_s, longest * 3600)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a session may use and cost."""

    sizes: Sizes
    region: str | None
    timeout_s: float
    max_usd: float | None
    cost: Cost
    agreed: int = 0  # micro-dollars that a person lets the ceiling rise by for it
    left_s: float = 0.0  # of the task's time when its sandbox has to end


def configured(
    ctx: Context, agent: Agent, project: str | None, directory: Path, cost: Cost
) -> tuple[Agent, list[tuple[str, str]]]:
    """The agent with the user's Claude Code configuration as it is now, and its archive among the sources."""
    if agent.kind != "claude":
        return agent, []
    from parhelia_mcp import config_sync  # a command needs none of it
    from parhelia_mcp.hook_validation.sources import Place

    place = Place(ctx.user_home, Path(project or ctx.cwd), ctx.environ)
    told = config_sync.pack(place, directory, config_sync.handing_on(agent.delegate, dollars(cost.tokens)))
    source = (f"sessions/{directory.name}/{told.archive}", str(directory / told.archive))
    return replace(agent, configuration=told), [source]


def create(
    ctx: Context,
    task: Task,
    number: int,
    spec: Spec,
    sources: list[tuple[str, str]],
    asked: Asked,
    *,
    new_task: bool,
    out_of: Session | None = None,
) -> Session:
    """Store the session (and its task) and reserve its worst case, or do neither.

    `sources` are (path below the task's directory, file here); `out_of` is the session whose reservation the money is
    taken from. Where another process was quicker with the task's idempotency key, its session is returned.
    Raises Refused `over-budget` with what would fit; Busy `task-is-live` where another session of the task lives.
    """
    session = Session(
        id=session_id(task.id, number),
        task=task.id,
        number=number,
        latest=1,
        state=State.PENDING,
        reason=None,
        detail=None,
        provider=task.provider,
        cpu=asked.sizes.cpu,
        memory_gb=asked.sizes.memory_gb,
        gpu=asked.sizes.gpu,
        region=asked.region,
        timeout_s=asked.timeout_s,
        max_usd=asked.max_usd,
        tokens_micro=asked.cost.tokens,
        rate_micro=asked.cost.rate,
        created_at=timestamp(),
        spec=asdict(spec),
        sources=[list(source) for source in sources],
        agent_session=spec.agent.session_id,
    )
    reach("submit.before_reserve")
    with ctx.store.transaction() as db:
        if new_task and task.idempotency_key and (known := ctx.store.by_key(task.idempotency_key)):
            return ctx.store.newest(known.id)
        if new_task:
            ctx.store.add_task(db, task)
        else:
            _alone(ctx, task)
        ctx.store.add_session(db, session)
        if out_of:
            budget.hand_on(db, out_of, asked.cost.total, task.id)
        _admit(ctx, db, session, asked)
    _note(ctx, task, session)
    reach("submit.after_reserve")
    budget.publish(ctx)
    return session


def forget(ctx: Context, task: str) -> None:
    """Remove the files of a task that was not stored; one that was goes on with them, whatever failed after that."""
    with suppress(Problem):  # where that cannot be asked, `cleanup` finds them later
        if not ctx.store.query("SELECT 1 FROM tasks WHERE id = ?", task):
            shutil.rmtree(ctx.task_dir(task), ignore_errors=True)


def _note(ctx: Context, task: Task, session: Session) -> None:
    """The rows as a file beside the session's own: from these a lost database is rebuilt."""
    folder = files.private_dir(ctx.session_dir(session.task, session.number))
    with suppress(OSError):  # on a full disk the session goes on; spec.json says most of it too
        files.replace_json(folder / "row.json", {"task": asdict(task), "session": asdict(session)})


def _alone(ctx: Context, task: Task) -> None:
    alive = [other for other in ctx.store.sessions(task.id) if other.live]
    if alive:
        raise Busy(
            "task-is-live",
            f"{alive[0].id} is {alive[0].state}; a task has one living session. Nothing was started.",
            f"parhelia session kill {alive[0].id}",
        )


def _admit(ctx: Context, db: Any, session: Session, asked: Asked) -> None:
    try:
        budget.admit(ctx, db, session, asked.cost.compute, asked.cost.tokens, agreed=asked.agreed)
    except Refused as problem:
        raise with_less(ctx, problem, session.provider, asked) from None


def refusal(ctx: Context, provider: str, asked: Asked) -> Refused | None:
    """What `create` would say to this now, with what would fit; None where it would start. A look, not the gate."""
    try:
        budget.check(ctx, ctx.store.db, budget.standing(ctx), asked.cost.total)
    except Refused as problem:
        return with_less(ctx, problem, provider, asked)
    return None


def shortfall(ctx: Context, provider: str, asked: Asked) -> tuple[int, Refused] | None:
    """What the ceiling lacks for this session in micro-dollars and the refusal it would meet, or None where it fits.

    Where a higher ceiling would not help there is nothing to ask for either: None too.
    """
    now = budget.standing(ctx, everywhere=True)
    problem = refusal(ctx, provider, asked)
    short = asked.cost.total - now.remaining
    if (
        problem is None
        or problem.code != "over-budget"
        or now.ceiling == 0
        or budget.standing(ctx) != now
        or short <= 0
    ):
        return None
    return short, problem


def with_less(ctx: Context, problem: Refused, provider: str, asked: Asked) -> Refused:
    """The refusal with the sizes and times that would fit, where its cause is the ceiling."""
    if problem.code != "over-budget":
        return problem
    less = _fitting(ctx, provider, asked, budget.standing(ctx).remaining)
    hint = f"{problem.hint}, or ask for less: {', or '.join(less)}" if less else problem.hint
    return Refused(problem.code, problem.message, hint)


def _fitting(ctx: Context, provider: str, asked: Asked, left: int) -> list[str]:
    """Flags with which it would fit into `left` micro-dollars: the same sizes for a shorter time, a smaller GPU."""
    tokens = asked.cost.tokens > 0
    if left < (LEAST_TOKENS if tokens else 1):
        return []
    usd = f"--max-usd {left // 10_000 / 100:.2f}"
    share = left * 4 // 5 if tokens else left  # compute; the rest is for the agent's requests
    wanted = asked.timeout_s / 3600

    own = billing.prices_for(ctx, provider)

    def hours(gpu: str | None) -> float:
        rate = prices.compute_rate_micro_per_hour(provider, asked.sizes._replace(gpu=gpu), asked.region, own)
        return min(wanted, share / rate) if rate else wanted

    same = hours(asked.sizes.gpu)
    found = [f"{usd} --timeout-hours {int(same * 100) / 100:g}"] if same >= SHORTEST_H else []
    cheaper = sorted(prices.GPU, key=prices.GPU.__getitem__, reverse=True) if asked.sizes.gpu and same < wanted else []
    smaller = next((gpu for gpu in cheaper if hours(gpu) >= wanted), None)
    return [*found, f"{usd} --gpu {smaller}"] if smaller else found
