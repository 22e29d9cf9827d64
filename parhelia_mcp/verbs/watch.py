"""One look at everything that lives: tasks, what an hour of it costs, and the end of one log."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import budget
from parhelia_mcp.context import Context
from parhelia_mcp.model import dollars
from parhelia_mcp.verbs import list as listing
from parhelia_mcp.verbs import logs

MOST = 20  # tasks looked at


class Request(BaseModel, extra="forbid"):
    """Look once."""

    id: Annotated[str | None, Field(description="Only this task or session")] = None
    chosen: Annotated[int, Field(description="Whose log, counted from the first task; beyond the last means it")] = 0
    tail: Annotated[int, Field(ge=1, le=500)] = 20


class Result(BaseModel):
    tasks: list[listing.Row]
    chosen: int
    lines: list[logs.LogLine]
    live: int
    usd_per_hour: float
    spent_usd: float
    remaining_usd: float


def run(ctx: Context, request: Request) -> Result:
    """Living tasks first, then the newest of those that have ended."""
    if request.id:
        sessions = [ctx.store.find(request.id)]
    else:
        alive, _ = listing.sessions(ctx, "active", MOST, None)
        ended, _ = listing.sessions(ctx, "completed,failed,killed,lost", MOST - len(alive) or 1, None)
        sessions = [*alive, *ended]
    chosen = max(0, min(request.chosen, len(sessions) - 1))
    now = budget.standing(ctx)
    paid = [session for session in ctx.store.live() if session.handle]
    told = logs.run(ctx, logs.Request(id=sessions[chosen].id, tail=request.tail)).lines if sessions else []
    return Result(
        tasks=[listing.row(ctx, session) for session in sessions],
        chosen=chosen,
        lines=told,
        live=len(paid),
        usd_per_hour=dollars(sum(session.rate_micro for session in paid)),
        spent_usd=dollars(now.spent),
        remaining_usd=dollars(now.remaining),
    )
