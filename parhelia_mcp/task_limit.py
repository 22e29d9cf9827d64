"""A task's own limit: each session after the first has what the ones before it left of it.

Where that is not enough, only a person goes on: with the whole limit again, or with the amount they name. A limit is a
session's own and never changes, so what a person adds is kept in the next session and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from parhelia_mcp import budget, delegation, prices, sessions
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.follow import spec_of
from parhelia_mcp.model import Reason, Sizes, dollars, micro
from parhelia_mcp.store import Session

USUAL_MODEL = "claude-opus-5"  # the dearest of what the client takes where no model is named
FIRST_INPUT = 130_000  # tokens at most in its first request: it has 76 to 127 kB, and a byte is a token at most
FIRST_OUTPUT = 256  # less is not asked for


@dataclass(frozen=True, slots=True)
class Next:
    """What the next session of a task may cost, and what is to be said of it."""

    cost: sessions.Cost
    max_usd: float
    timeout_s: float
    note: str | None = None


def left(ctx: Context, latest: Session) -> int:
    """Micro-dollars of the task's limit that its sessions have neither spent nor handed on."""
    task, per_task = ctx.store.task(latest.task), micro(ctx.loaded.config.budget.per_task_usd)
    rest = per_task if latest.max_usd is None else micro(latest.max_usd)
    rest -= budget.account(ctx, session=latest.id).spent + delegation.handed_on(ctx, latest.id)
    if "max_usd" not in task.request:  # then the limit is the settings', which may have been raised since
        gone = budget.account(ctx, task=task.id).spent + delegation.handed_on(ctx, task.id)
        rest = max(rest, per_task - gone)
    return max(rest, 0)


def next_session(
    ctx: Context, latest: Session, sizes: Sizes, region: str | None, *, by_person: bool, max_usd: float | None = None
) -> Next:
    """The worst case of the session after `latest`. `max_usd`: what a person lets it spend, whatever was spent before.

    Raises Refused `over-task-limit` where what is left is not enough and no person asks.
    """

    def priced(most: float) -> Next:
        tokens, timeout_s = spec_of(latest).agent.kind == "claude", latest.timeout_s
        if "timeout_hours" not in ctx.store.task(latest.task).request:
            timeout_s = sessions.unasked_time(ctx, latest.provider, sizes, region, most, tokens)
        cost = sessions.worst_case(ctx, latest.provider, sizes, region, timeout_s, most, tokens)
        return Next(cost, most, timeout_s)

    rest = left(ctx, latest)
    if max_usd is not None and (by_person or micro(max_usd) <= rest):
        return priced(max_usd)
    refusal: Refused | None = None
    if max_usd is None and latest.reason is not Reason.OVER_BUDGET:
        try:
            return priced(dollars(rest))
        except Refused as problem:
            refusal = problem
    whole = _whole(ctx, latest)
    spent = dollars(budget.account(ctx, task=latest.task).spent)
    said = f"{latest.task} has spent ${spent:.2f} and ${dollars(rest):.2f} of its limit of ${whole:.2f} is left"
    if not by_person:
        wish = f" --max-usd {max_usd:g}" if max_usd is not None else ""
        raise Refused(
            "over-task-limit",
            f"{said}, which is too little to go on; more of it is a person's to give. Nothing was started.",
            f"ask the person to type: parhelia resume {latest.task}{wish}",
        ) from refusal
    return replace(priced(whole), note=f"{said}; this session may spend another ${whole:.2f}")


def _whole(ctx: Context, latest: Session) -> float:
    """The limit that the task was given, in dollars."""
    asked = ctx.store.task(latest.task).request.get("max_usd")
    return ctx.loaded.config.budget.per_task_usd if asked is None else float(asked)


def too_small(ctx: Context, model: str | None, tokens_micro: int) -> str | None:
    """What a person should know of a token cap that the client's first request may pass; None where it fits."""
    price = prices.model_price(model or USUAL_MODEL, ctx.loaded.config.prices)
    first = prices.worst_case(price, FIRST_INPUT, FIRST_OUTPUT, cached="5m")
    if tokens_micro >= first:
        return None
    which = model or f"{USUAL_MODEL}, if that is its model"
    return (
        f"${dollars(tokens_micro):.2f} is left for tokens and the first request of Claude Code alone may cost up to "
        f"${dollars(first):.2f} with {which}: it may end over budget before it has done anything; "
        f"a higher --max-usd, or a smaller --model"
    )
