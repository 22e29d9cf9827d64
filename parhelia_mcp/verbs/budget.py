"""What may be spent, what is, and what is held for sessions that run."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from parhelia_mcp import budget, follow, model, prices
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.model import dollars, timestamp
from parhelia_mcp.verbs import submit


class Request(BaseModel, extra="forbid"):
    """Show the budget."""


class ByTask(BaseModel):
    task_id: str
    spent_usd: float
    reserved_usd: float


class Result(BaseModel):
    ceiling_usd: float
    spent_usd: float
    reserved_usd: float
    remaining_usd: float
    per_task_usd: float
    per_day_usd: float | None
    burn_usd_per_hour: float
    warning: str | None
    by_task: list[ByTask]
    omitted: int  # tasks that are not in the list


class SetRequest(BaseModel, extra="forbid"):
    """Set the ceiling over everything."""

    amount: Annotated[str, Field(description="Dollars")]


class SetResult(BaseModel):
    before_usd: float
    ceiling_usd: float
    spent_usd: float
    reserved_usd: float
    remaining_usd: float
    note: str | None


MOST_TASKS = 50


class EstimateRequest(BaseModel, extra="forbid"):
    """Price sizes before anything is submitted."""

    gpu: Annotated[str | None, Field(description="GPU type")] = None
    cpu: Annotated[float | None, Field(gt=0, le=512, allow_inf_nan=False, description="Cores")] = None
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False, description="GiB")] = None
    timeout_hours: Annotated[float | None, Field(gt=0, le=720, allow_inf_nan=False, description="Time limit")] = None
    provider: Annotated[Literal["local", "modal"] | None, Field(description="Only this provider")] = None
    region: Annotated[str | None, Field(description="Region on modal")] = None


class Offer(BaseModel):
    """What a provider would charge at most for compute; tokens come on top, up to the task's limit."""

    provider: str
    cpu: float
    memory_gb: float | None
    gpu: str | None
    region: str | None
    usd_per_hour: float
    compute_usd: float


class EstimateResult(BaseModel):
    offers: list[Offer]
    hours: float
    per_task_usd: float
    remaining_usd: float
    prices_date: str
    prices_source: str


class HistoryRequest(BaseModel, extra="forbid"):
    """Say where the money went."""

    days: Annotated[int, Field(ge=1, le=3650, description="How far back")] = 30


class Spent(BaseModel):
    name: str
    usd: float


class HistoryResult(BaseModel):
    spent_usd: float
    by_day: list[Spent]
    by_task: list[Spent]
    by_kind: list[Spent]


def run(ctx: Context, request: Request, *, most: int = MOST_TASKS) -> Result:
    """The dearest tasks come first, `most` of them."""
    now = budget.standing(ctx)
    rows = ctx.store.query(
        "SELECT task, sum(charged) AS spent, sum(max(reserved - released - charged, 0)) AS held FROM accounts GROUP BY task ORDER BY spent + held DESC, task LIMIT ?",
        most,
    )
    tasks = ctx.store.query("SELECT count(DISTINCT task) AS n FROM accounts")[0]["n"]
    burning = sum(session.rate_micro for session in ctx.store.live() if session.handle)
    settings = ctx.loaded.config.budget
    return Result(
        ceiling_usd=dollars(now.ceiling),
        spent_usd=dollars(now.spent),
        reserved_usd=dollars(now.reserved),
        remaining_usd=dollars(now.remaining),
        per_task_usd=settings.per_task_usd,
        per_day_usd=settings.per_day_usd,
        burn_usd_per_hour=dollars(burning),
        warning=_warning(now, settings.warning_threshold),
        omitted=tasks - len(rows),
        by_task=[
            ByTask(task_id=row["task"], spent_usd=dollars(row["spent"]), reserved_usd=dollars(row["held"]))
            for row in rows
        ],
    )


def set_ceiling(ctx: Context, request: SetRequest, *, may_raise: bool) -> SetResult:
    """Store the ceiling. Raises Refused `raise-refused` for a higher one where nobody sits there to agree."""
    wanted = budget.amount(request.amount)
    if not may_raise and (refused := raise_refused(ctx, request)):
        raise refused
    before, after = budget.set_ceiling(ctx, wanted)
    return SetResult(
        before_usd=dollars(before.ceiling),
        ceiling_usd=dollars(after.ceiling),
        spent_usd=dollars(after.spent),
        reserved_usd=dollars(after.reserved),
        remaining_usd=dollars(after.remaining),
        note=_consequence(after),
    )


def raise_refused(ctx: Context, request: SetRequest) -> Refused | None:
    """What an agent without a person's word is told, where this is a raise."""
    ceiling = budget.standing(ctx).ceiling
    if budget.amount(request.amount) <= ceiling:
        return None
    return Refused(
        "raise-refused",
        f"The ceiling is ${dollars(ceiling):.2f}; an agent without a person at a terminal does not raise it. Nothing was changed.",
        f"ask the person to type: parhelia budget set {request.amount}",
    )


def _warning(now: budget.Standing, threshold: float) -> str | None:
    used = now.spent + now.reserved
    if now.spent > now.ceiling:
        return f"spent ${dollars(now.spent):.2f} is above the ceiling: nothing new starts"
    if now.ceiling and used >= threshold * now.ceiling:
        return f"{100 * used / now.ceiling:.0f} % of the ceiling is spent or reserved"
    return None


def _consequence(now: budget.Standing) -> str | None:
    if now.ceiling == 0:
        return "a ceiling of $0 blocks everything: nothing new starts"
    if now.remaining < 0:
        return "this is below what is spent and reserved: running sessions go on, nothing new starts"
    return None


def estimate(ctx: Context, request: EstimateRequest) -> EstimateResult:
    """What these sizes cost for their whole time limit, on every provider unless one is named; reserves nothing."""
    settings = ctx.loaded.config
    hours = request.timeout_hours or settings.modal.default_timeout_hours
    wanted = [request.provider] if request.provider else ["local", "modal"]
    return EstimateResult(
        offers=[_offer(ctx, request, provider, hours) for provider in wanted],
        hours=hours,
        per_task_usd=settings.budget.per_task_usd,
        remaining_usd=dollars(budget.standing(ctx).remaining),
        prices_date=prices.DATE,
        prices_source=prices.COMPUTE_SOURCE,
    )


def _offer(ctx: Context, request: EstimateRequest, provider: str, hours: float) -> Offer:
    sizes = submit.sizes_for(ctx, provider, request.cpu, request.memory, request.gpu, check_gpu=False)
    region = request.region or ctx.loaded.config.modal.region if provider == "modal" else None
    rate = prices.compute_rate_micro_per_hour(provider, sizes, region, ctx.loaded.config.prices)
    return Offer(
        provider=provider,
        cpu=sizes.cpu,
        memory_gb=sizes.memory_gb or None,
        gpu=sizes.gpu,
        region=region,
        usd_per_hour=dollars(rate),
        compute_usd=dollars(follow.reserve_for(rate, hours * 3600)),
    )


def history(ctx: Context, request: HistoryRequest) -> HistoryResult:
    """Everything charged since so many days ago (UTC), by day, task and kind; the dearest tasks first."""
    since = timestamp(model.now() - timedelta(days=request.days - 1))[:10]

    def summed(column: str, order: str) -> list[Spent]:
        rows = ctx.store.query(
            f"SELECT {column} AS name, sum(micro_usd) AS micro FROM ledger WHERE kind = 'charge' AND at >= ? GROUP BY name ORDER BY {order} LIMIT ?",
            since,
            max(MOST_TASKS, request.days),
        )
        return [Spent(name=row["name"], usd=dollars(row["micro"])) for row in rows]

    by_kind = summed("source", "name")
    return HistoryResult(
        spent_usd=round(sum(kind.usd for kind in by_kind), 6),
        by_day=summed("substr(at, 1, 10)", "name"),
        by_task=summed("task", "micro DESC, name"),
        by_kind=by_kind,
    )
