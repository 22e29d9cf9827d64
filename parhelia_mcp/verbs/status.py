"""Is the system well: settings, tasks, money, providers. Works with a broken configuration and says what was not observed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from parhelia_mcp import budget, controller
from parhelia_mcp.context import Context
from parhelia_mcp.model import dollars, timestamp
from parhelia_mcp.verbs import list as listing

PROBE_S = 2.0  # what a remote provider gets to answer: the whole answer stays under 3 s
ACTIVE = 10  # living tasks shown


class Request(BaseModel, extra="forbid"):
    """Show the health of everything."""


class Provider(BaseModel):
    name: str
    ok: bool
    observed: bool
    observed_at: str | None
    what: str
    hint: str | None = None


class Result(BaseModel):
    ok: bool
    config: dict[str, Any]
    tasks: dict[str, Any]
    budget: dict[str, Any]
    providers: list[Provider]
    next: str | None


def run(ctx: Context, request: Request) -> Result:
    loaded = ctx.loaded
    controller.ensure(ctx)
    now = budget.standing(ctx)
    active = listing.run(ctx, listing.Request(state="active", limit=ACTIVE))
    asked = providers(ctx)
    ok = not loaded.faults and all(provider.ok for provider in asked)
    return Result(
        ok=ok,
        config={
            "ok": not loaded.faults,
            "files": [str(path) for path in loaded.files],
            "faults": [f"{fault}. Fix: {fault.hint}" for fault in loaded.faults],
        },
        tasks={"counts": ctx.store.counts(), "active": [row.model_dump() for row in active.tasks]},
        budget={
            "ceiling_usd": dollars(now.ceiling),
            "spent_usd": dollars(now.spent),
            "reserved_usd": dollars(now.reserved),
            "remaining_usd": dollars(now.remaining),
            "warning": budget.warning(ctx, now),
        },
        providers=[*asked, *([] if modal_matters(ctx) else [_IDLE])],
        next=_next(ctx, asked),
    )


def providers(ctx: Context) -> list[Provider]:
    """Every provider that is in use, asked now."""
    return [_local(ctx), *([_modal(ctx)] if modal_matters(ctx) else [])]


def exit_code(result: Result) -> int:
    if not result.config["ok"]:
        return 2
    return 0 if all(provider.ok for provider in result.providers) else 5


def _next(ctx: Context, providers: list[Provider]) -> str | None:
    if ctx.loaded.faults:
        return ctx.loaded.faults[0].hint
    return next((provider.hint for provider in providers if not provider.ok and provider.hint), None)


def _local(ctx: Context) -> Provider:
    running = sum(1 for session in ctx.store.live("local") if session.handle)
    most = ctx.loaded.config.local.max_sessions
    return Provider(
        name="local",
        ok=True,
        observed=True,
        observed_at=timestamp(),
        what=f"{running} of {most} sessions run on this machine",
    )


_IDLE = Provider(
    name="modal",
    ok=True,
    observed=False,
    observed_at=None,
    what='not asked: it is not in use; --provider modal, or provider = "modal" in parhelia.toml, uses it',
)


def modal_matters(ctx: Context) -> bool:
    """Whether Modal is configured or has sessions of ours."""
    return ctx.loaded.config.provider == "modal" or bool(ctx.store.live("modal"))


def _modal(ctx: Context) -> Provider:
    """Whether Modal answers now; a frozen server must not freeze us."""
    from parhelia_mcp.providers import probe

    last = max((session.observed_at or "" for session in ctx.store.live("modal")), default="") or None
    answer = probe.ask(ctx, "modal", PROBE_S)
    observed = bool(answer["ok"])
    since = "" if observed else f"; sessions below are as last observed{f' at {last}' if last else ''}"
    return Provider(
        name="modal",
        ok=observed,
        observed=observed,
        observed_at=timestamp() if observed else last,
        what=answer["what"] + since,
        hint=answer.get("hint"),
    )
