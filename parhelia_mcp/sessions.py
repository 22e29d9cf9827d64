"""Make a session: the one function that submit, resume and recover call. Its transaction is the only way to spend."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from parhelia_mcp import budget, follow, prices
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Refused
from parhelia_mcp.failpoint import reach
from parhelia_mcp.model import Sizes, State, dollars, micro, session_id, timestamp
from parhelia_mcp.spec import Spec
from parhelia_mcp.store import Session, Task

LEAST_TOKENS = 10_000  # micro-dollars: an agent with less could not make one request


@dataclass(frozen=True, slots=True)
class Cost:
    """The worst case of a session in micro-dollars: what is reserved."""

    rate: int  # an hour of compute
    compute: int
    tokens: int

    @property
    def total(self) -> int:
        return self.compute + self.tokens


def worst_case(
    ctx: Context, provider: str, sizes: Sizes, region: str | None, timeout_s: float, max_usd: float | None, tokens: bool
) -> Cost:
    """What the session can cost at most. Raises Refused `over-task-limit` where compute alone is more than its limit."""
    settings = ctx.loaded.config
    limit = micro(settings.budget.per_task_usd if max_usd is None else max_usd)
    rate = prices.compute_rate_micro_per_hour(provider, sizes, region, settings.prices)
    compute = follow.reserve_for(rate, timeout_s)
    if compute > limit or (tokens and limit - compute < LEAST_TOKENS and limit > 0):
        hours = limit / rate if rate else timeout_s / 3600
        raise Refused(
            "over-task-limit",
            f"{timeout_s / 3600:g} h of compute cost up to ${dollars(compute):.2f} and this task may spend ${dollars(limit):.2f}"
            f"{' on compute and tokens together' if tokens else ''}. Nothing was reserved.",
            f"--timeout-hours {max(hours * 0.8, 0.01):.2f}, or --max-usd {dollars(compute) * 1.25 + (1 if tokens else 0):.2f}, or a smaller size",
        )
    return Cost(rate, compute, limit - compute if tokens else 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a session may use and cost."""

    sizes: Sizes
    region: str | None
    timeout_s: float
    max_usd: float | None
    cost: Cost


def create(
    ctx: Context, task: Task, number: int, spec: Spec, sources: list[tuple[str, str]], asked: Asked, *, new_task: bool
) -> Session:
    """Store the session (and its task) and reserve its worst case, or do neither.

    `sources` are (path below the task's directory, file here). Raises Refused `over-budget`; Busy `task-is-live` where
    another session of the task lives.
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
        if new_task:
            ctx.store.add_task(db, task)
        else:
            _alone(ctx, task)
        ctx.store.add_session(db, session)
        budget.admit(ctx, db, session, asked.cost.compute, asked.cost.tokens)
    reach("submit.after_reserve")
    budget.publish(ctx)
    return session


def _alone(ctx: Context, task: Task) -> None:
    alive = [other for other in ctx.store.sessions(task.id) if other.live]
    if alive:
        raise Busy(
            "task-is-live",
            f"{alive[0].id} is {alive[0].state}; a task has one living session. Nothing was started.",
            f"parhelia session kill {alive[0].id}",
        )
