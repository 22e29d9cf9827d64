"""What a provider itself says about money: its prices, and what its sandboxes cost.

Its prices come before our table's and after `[prices]`. They are asked for once a day, where a session ends or a person
asks for an estimate, and kept in `prices.json`: what starts a session never waits for them. What it says that a sandbox
cost comes minutes late; it is shown beside the ledger's figure and is no part of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import dollars, micro, moment, now, timestamp
from parhelia_mcp.providers.base import Rates
from parhelia_mcp.store import Session

FILE = "prices.json"
PRICES_LAST = timedelta(days=1)
LATE = timedelta(minutes=10)  # a figure taken so long after the end is final
ASK_AGAIN = timedelta(minutes=1)  # after a question without an answer, or a figure that is not final
FORGOTTEN = timedelta(days=7)  # what has no figure by then gets none
ASK_S = 5.0  # the library alone takes one or two to import


@dataclass(frozen=True, slots=True)
class Known:
    """A provider's prices as it said them, in the form of `[prices]`."""

    source: str
    at: str
    prices: Mapping[str, Any]


def known(ctx: Context, provider: str) -> Known | None:
    """What the provider said last, however old; None where it never said anything."""
    entry = _kept(ctx).get(provider) or {}
    return Known(entry["source"], entry["at"], entry["prices"]) if "prices" in entry else None


def prices_for(ctx: Context, provider: str, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What replaces rows of our table here: the provider's prices, and over them the user's `[prices]`."""
    own = ctx.loaded.config.prices if own is None else own
    said = known(ctx, provider)
    if said is None:
        return dict(own)
    gpu = {**said.prices["gpu_usd_per_hour"], **own.get("gpu_usd_per_hour", {})}
    return {**said.prices, **own, "gpu_usd_per_hour": gpu}


def refresh(ctx: Context, provider: str) -> None:
    """Ask for prices that are a day old. Where nobody answers, what was known stays, and it is not asked again at once."""
    entry = _kept(ctx).get(provider) or {}
    if not _bills(ctx, provider) or not _due(entry):
        return
    told: Rates | None = None
    with suppress(Problem):
        told = ctx.provider(provider).rates(deadline=ASK_S)
    entry = {**entry, "asked_at": timestamp()}
    if told is not None:
        entry |= {"at": entry["asked_at"], "source": told.source, "prices": _as_overrides(told)}
    files.replace_json(ctx.home / FILE, {**_kept(ctx), provider: entry})


def _bills(ctx: Context, provider: str) -> bool:
    """Whether there is anything to ask, and an account to ask with."""
    return ctx.provider(provider).properties.bills and ctx.modal_account


def _due(entry: Mapping[str, Any]) -> bool:
    told, asked = entry.get("at"), entry.get("asked_at")
    fresh = told and now() - moment(told) < PRICES_LAST
    return not fresh and not (asked and now() - moment(asked) < ASK_AGAIN)


def _as_overrides(told: Rates) -> dict[str, Any]:
    said = {"cpu_core_usd_per_hour": told.cpu_core, "memory_gb_usd_per_hour": told.memory_gb}
    return {key: rate for key, rate in said.items() if rate} | {"gpu_usd_per_hour": dict(told.gpu)}


def _kept(ctx: Context) -> dict[str, Any]:
    kept = files.read_json(ctx.home / FILE)
    return kept if isinstance(kept, dict) else {}


@dataclass(frozen=True, slots=True)
class Billed:
    """What the provider says of sessions' compute, in dollars, and when it said so last."""

    usd: float
    at: str


def billed(ctx: Context, *, session: str | None = None, task: str | None = None) -> Billed | None:
    """The provider's figure for a session or a task; None where it gave none."""
    column, value = ("session", session) if session else ("task", task)
    row = ctx.store.query(f"SELECT sum(micro_usd) AS micro, max(at) AS at FROM billed WHERE {column} = ?", value)[0]
    return None if row["micro"] is None else Billed(dollars(row["micro"]), row["at"])


def ask(ctx: Context, session: Session) -> None:
    """Ask what an ended session cost, unless its figure is final already. Where nobody answers, what was said stays."""
    if session.handle is None or not session.settled_at or not session.ended_at or not _bills(ctx, session.provider):
        return
    row = next(iter(ctx.store.query("SELECT at FROM billed WHERE session = ?", session.id)), None)
    ended, asked = moment(session.ended_at), moment(row["at"]) if row else None
    if now() - ended > FORGOTTEN or (asked and (asked - ended > LATE or now() - asked < ASK_AGAIN)):
        return
    from parhelia_mcp import follow

    usd = None
    with suppress(Problem):
        usd = follow.open_sandbox(ctx, session).cost(deadline=ASK_S)
    with ctx.store.transaction() as db:
        db.execute(
            "INSERT INTO billed (session, task, at, micro_usd) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET at = excluded.at, micro_usd = coalesce(excluded.micro_usd, micro_usd)",
            (session.id, session.task, timestamp(), None if usd is None else micro(usd)),
        )
