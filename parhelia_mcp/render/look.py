"""Tasks, sessions, logs and health, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parhelia_mcp.plain import clean
from parhelia_mcp.render.text import age, colour, money, pairs, state, table
from parhelia_mcp.render.work import landed

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def tasks(result: verbs.list.Result) -> str:
    if not result.tasks:
        return "no tasks"
    rows = [
        (
            row.task_id,
            row.state + ("…" if row.kill_requested_at else ""),
            age(row.created_at),
            money(row.spent_usd),
            row.gpu or "-",
            row.title,
        )
        for row in result.tasks
    ]
    text = table(("TASK", "STATE", "AGE", "SPENT", "GPU", "WHAT"), rows, paint=1)
    return text + (f"\nmore: --cursor {result.next_cursor}" if result.next_cursor else "")


def task(result: verbs.show.Result) -> str:
    command = " ".join(result.command) if result.command else None
    ended = f"{result.ended_at} ({age(result.ended_at)} ago)" if result.ended_at else None
    lines = pairs(
        [
            ("task", result.task_id),
            ("session", result.session_id),
            ("state", state(result.state) + (f" ({result.reason})" if result.reason else "")),
            ("why", result.detail),
            ("kill", "requested, not yet confirmed: may still cost" if result.kill_requested_at else None),
            ("waits for", result.waiting_for),
            ("prompt", _short(result.prompt)),
            ("command", _short(command)),
            ("provider", result.provider + (f" {result.region}" if result.region else "")),
            ("gpu", result.gpu or "none"),
            ("memory", f"{result.memory_gb:g} GiB" if result.memory_gb else "no limit"),
            ("cpu", f"{result.cpu:g}"),
            ("created", f"{result.created_at} ({age(result.created_at)} ago)"),
            ("started", result.started_at),
            ("ends by", result.deadline if not result.ended_at else None),
            ("ended", ended),
            ("exit code", str(result.exit_code) if result.exit_code is not None else None),
            (
                "spent",
                f"{money(result.spent_usd)}"
                + (f", {money(result.reserved_usd)} reserved" if result.reserved_usd else ""),
            ),
            ("activity", f"{result.last_activity} ({age(result.last_event_at)} ago)" if result.last_activity else None),
            (
                "observed",
                f"{age(result.observed_at)} ago"
                if result.observed
                else f"no: {result.observed_why or 'not asked yet'}",
            ),
            ("workspace", result.workspace_path),
            ("attach", result.attach),
        ]
    )
    return "\n".join([lines, *(landed(result.result) if result.result else ())])


def _short(text: str | None) -> str | None:
    if text is None:
        return None
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else f"{flat[:300]}… ({len(text)} characters)"


def log_line(line: verbs.logs.LogLine) -> str:
    return f"{line.at[11:19]} [{line.kind}] {line.text}" if line.stream == "events" else line.text


def status(result: verbs.status.Result) -> str:
    budget_ = result.budget
    lines = [
        f"config    {'ok' if result.config['ok'] else colour('broken', 31)}"
        + ("" if result.config["files"] else "  (defaults; parhelia init writes a file)")
    ]
    lines += [f"          {clean(fault)}" for fault in result.config["faults"]]
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.tasks["counts"].items())) or "none yet"
    lines.append(f"tasks     {counts}")
    lines += [
        f"          {row['task_id']}  {state(row['state'])}  {money(row['spent_usd'])}  {row['title']}"
        for row in result.tasks["active"]
    ]
    lines.append(
        f"budget    {money(budget_['spent_usd'])} spent, {money(budget_['reserved_usd'])} reserved, {money(budget_['remaining_usd'])} left of {money(budget_['ceiling_usd'])}"
    )
    lines += [
        f"{provider.name:<9} {'ok' if provider.ok else colour('not ok', 31)}: {clean(provider.what)}"
        for provider in result.providers
    ]
    return "\n".join([*lines, *([f"next: {result.next}"] if result.next else ())])
