"""What may be spent, what is, and what is held for sessions that run."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import billing, budget, model
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.model import dollars, timestamp


class Request(BaseModel, extra="forbid"):
    """Show the budget."""


class ByTask(BaseModel):
    task_id: str
    spent_usd: float
    reserved_usd: float
    provider_usd: float | None = None  # what the provider itself says its part of `spent_usd` cost


class Result(BaseModel):
    ceiling_usd: float
    spent_usd: float
    reserved_usd: float
    remaining_usd: float
    per_task_usd: float
    per_day_usd: float | None
    burn_usd_per_hour: float
    warning: str | None
    note: str | None
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
        warning="; ".join(filter(None, (budget.warning(ctx, now), *budget.overcharged(ctx)))) or None,
        note=_note(ctx),
        omitted=tasks - len(rows),
        by_task=[
            ByTask(
                task_id=row["task"],
                spent_usd=dollars(row["spent"]),
                reserved_usd=dollars(row["held"]),
                provider_usd=said.usd if (said := billing.billed(ctx, task=row["task"])) else None,
            )
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
        note="; ".join(filter(None, (_consequence(after), _note(ctx)))) or None,
    )


def raise_refused(ctx: Context, request: SetRequest) -> Refused | None:
    """What an agent without a person's word is told, where this is a raise."""
    ceiling = budget.standing(ctx, everywhere=True).ceiling
    if budget.amount(request.amount) <= ceiling:
        return None
    return Refused(
        "raise-refused",
        f"The ceiling is ${dollars(ceiling):.2f}; an agent without a person at a terminal does not raise it. Nothing was changed.",
        f"ask the person to type: parhelia budget set {request.amount}",
    )


def _note(ctx: Context) -> str | None:
    project = budget.project_ceiling(ctx)
    if project is None:
        return None
    return f"this project's parhelia.toml lowers the ceiling to ${dollars(project):.2f} for what starts in it"


def _consequence(now: budget.Standing) -> str | None:
    if now.ceiling == 0:
        return "a ceiling of $0 blocks everything: nothing new starts"
    if now.remaining < 0:
        return "this is below what is spent and reserved: running sessions go on, nothing new starts"
    return None


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
