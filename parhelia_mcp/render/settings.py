"""Money and settings, as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from parhelia_mcp.plain import clean
from parhelia_mcp.render.text import colour, money, pairs, table

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def budget(result: verbs.budget.Result) -> str:
    lines = [
        pairs(
            [
                ("ceiling", money(result.ceiling_usd)),
                ("spent", money(result.spent_usd)),
                ("reserved", money(result.reserved_usd)),
                ("remaining", money(result.remaining_usd)),
                ("per task", money(result.per_task_usd)),
                ("per day", money(result.per_day_usd) if result.per_day_usd is not None else None),
                ("warning", result.warning),
            ]
        )
    ]
    rows = [
        (row.task_id, money(row.spent_usd), money(row.reserved_usd))
        for row in result.by_task
        if row.spent_usd or row.reserved_usd
    ]
    return "\n\n".join(part for part in (*lines, table(("TASK", "SPENT", "RESERVED"), rows)) if part)


def ceiling(result: verbs.budget.SetResult) -> str:
    note = f"\n{result.note}" if result.note else ""
    return f"ceiling {money(result.before_usd)} -> {money(result.ceiling_usd)}; {money(result.spent_usd)} spent, {money(result.reserved_usd)} reserved, {money(result.remaining_usd)} left{note}"


def config(result: verbs.config.Result) -> str:
    rows = []
    for section, values in result.config.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{section}.{key}" if key else section
            rows.append((name, json.dumps(value, ensure_ascii=False), result.sources.get(name, "default")))
    faults = "".join(f"\n{colour('broken', 31)}: {clean(fault)}" for fault in result.faults)
    return f"home: {result.home}\n" + table(("KEY", "VALUE", "FROM"), rows) + faults
