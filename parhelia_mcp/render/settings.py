"""Money and settings, as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from parhelia_mcp.plain import clean
from parhelia_mcp.render.text import bar, colour, money, pairs, table, width, wrap

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def budget(result: verbs.budget.Result) -> str:
    used = (result.spent_usd + result.reserved_usd) / result.ceiling_usd if result.ceiling_usd else 1.0
    facts = pairs(
        [
            ("ceiling", money(result.ceiling_usd)),
            ("spent", money(result.spent_usd)),
            ("reserved", money(result.reserved_usd)),
            ("remaining", money(result.remaining_usd)),
            ("used", f"{bar(used, 20)} {100 * used:.0f} %"),
            ("an hour", f"{money(result.burn_usd_per_hour)} by what runs now" if result.burn_usd_per_hour else None),
            ("per task", money(result.per_task_usd)),
            ("per day", money(result.per_day_usd) if result.per_day_usd is not None else None),
            ("warning", result.warning),
            ("note", result.note),
        ]
    )
    rows = [
        (row.task_id, money(row.spent_usd), money(row.reserved_usd), _said(row.provider_usd))
        for row in result.by_task
        if row.spent_usd or row.reserved_usd
    ]
    if any(row.provider_usd is not None for row in result.by_task):
        by_task = table(("TASK", "SPENT", "RESERVED", "PROVIDER SAYS"), rows, right=(1, 2, 3))
    else:
        by_task = table(("TASK", "SPENT", "RESERVED"), [row[:3] for row in rows], right=(1, 2))
    return "\n\n".join(part for part in (facts, by_task) if part)


def _said(usd: float | None) -> str:
    return "" if usd is None else money(usd)


def estimate(result: verbs.estimate.Result) -> str:
    rows = [
        (
            one.provider,
            one.gpu or "none",
            f"{one.cpu:g}",
            f"{one.memory_gb:g} GiB" if one.memory_gb else "no limit",
            one.region or "any",
            money(one.usd_per_hour),
            money(one.compute_usd),
            money(one.tokens_usd),
        )
        for one in result.offers
    ]
    heads = ("PROVIDER", "GPU", "CPU", "MEMORY", "REGION", "AN HOUR", f"{result.hours:g} H", "TOKENS")
    rates, columns = result.model, ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
    listed = "" if rates.listed else " (not in the table: the highest of each)"
    lines = [
        f"up to {money(result.estimate_usd)} on {result.offers[0].provider}, "
        + (f"{money(result.remaining_usd)} would remain" if result.fits else f"refused: {result.note}"),
        *([f"note: {result.note}"] if result.fits and result.note else ()),
        f"{rates.model}{listed}, a million tokens: "
        + ", ".join(f"{name.replace('_', ' ')} {money(getattr(rates, name))}" for name in columns),
        *filter(None, map(_sources, result.offers)),
        f"table, prices of {result.prices_date}: {result.prices_source}; [prices] overrides them"
        + (f" and does: {', '.join(result.overridden)}" if result.overridden else ""),
        f"next: {result.next}",
    ]
    return "\n".join([table(heads, rows, spare=(4, 3, 2), right=(2, 5, 6, 7)), *map(wrap, lines)])


def _sources(offer: verbs.estimate.Offer) -> str:
    """The prices behind an offer that are not all the table's: each number with who said it when."""
    by: dict[str, list[str]] = {}
    for one in offer.prices:
        number = f"x{one.factor:g}" if one.factor else f"${one.usd_per_hour:g} an hour"
        by.setdefault(one.source + (f", {one.date[:10]}" if one.date else ""), []).append(f"{one.what} {number}")
    return f"{offer.provider}: " + "; ".join(f"{', '.join(numbers)} ({source})" for source, numbers in by.items())


def history(result: verbs.budget.HistoryResult) -> str:
    """Bars by day, task and kind; each as long as its share of the largest in its part."""
    if not result.spent_usd:
        return "nothing was spent"
    parts = (("by day (UTC)", result.by_day), ("by task", result.by_task), ("by kind", result.by_kind))
    return "\n\n".join([f"spent {money(result.spent_usd)}", *(_bars(*part) for part in parts)])


def _bars(title: str, spent: list[verbs.budget.Spent]) -> str:
    most = max(one.usd for one in spent)
    room = min(40, (width() or 80) - 26)
    return "\n".join([title, *(f"  {one.name:<13} {money(one.usd):>8}  {bar(one.usd / most, room)}" for one in spent)])


def ceiling(result: verbs.budget.SetResult) -> str:
    note = f"\n{result.note}" if result.note else ""
    return f"ceiling {money(result.before_usd)} -> {money(result.ceiling_usd)}; {money(result.spent_usd)} spent, {money(result.reserved_usd)} reserved, {money(result.remaining_usd)} left{note}"


def init(result: verbs.init.Result) -> str:
    done = (
        "written" if result.written else "there already, left as it is" if Path(result.path).exists() else "not written"
    )
    checks = [(one.name, "ok" if one.ok else "missing", one.what) for one in result.checks]
    return "\n".join(
        [
            f"settings: {result.path} ({done})",
            "",
            table(("CHECK", "STATE", "WHAT"), checks, paint=1),
            "",
            "connect Claude Code:",
            *(f"  {line}" for line in result.claude_code),
            "",
            f"next: {result.next}",
        ]
    )


def config(result: verbs.config.Result) -> str:
    rows = []
    for section, values in result.config.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{section}.{key}" if key else section
            rows.append((name, json.dumps(value, ensure_ascii=False), result.sources.get(name, "default")))
    faults = "".join(f"\n{colour('broken', 31)}: {clean(fault)}" for fault in result.faults)
    return f"home: {result.home}\n" + table(("KEY", "VALUE", "FROM"), rows) + faults


def config_diff(result: verbs.config_diff.Result) -> str:
    rows = [
        (how, clean(item.name), clean(item.note))
        for how, items in (("travels", result.carried), ("changed", result.rewritten), ("stays", result.dropped))
        for item in items
    ]
    return table(("", "WHAT", "WHY"), rows)


def hooks(result: verbs.hooks.Result) -> str:
    was = [f"rewrote {file.file}" + (f"; before: {file.backup}" if file.backup else "") for file in result.changed]
    return clean("\n".join([*was, result.text]))
