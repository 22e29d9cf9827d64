"""Tasks, sessions, logs and health, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parhelia_mcp.plain import clean
from parhelia_mcp.render.mend import diagnosis
from parhelia_mcp.render.text import age, colour, money, pairs, state, table, wrap
from parhelia_mcp.render.work import landed

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def tasks(result: verbs.list.Result) -> str:
    if not result.tasks:
        return "no tasks"
    rows = [
        (
            row.task_id,
            standing(row.state, row.reason, row.kill_requested_at),
            age(row.created_at),
            money(row.spent_usd),
            money(row.reserved_usd) if row.reserved_usd else "-",
            row.gpu or "-",
            row.title,
        )
        for row in result.tasks
    ]
    heads = ("TASK", "STATE", "AGE", "SPENT", "HELD", "GPU", "WHAT")
    text = table(heads, rows, paint=1, spare=(4, 5, 3, 2), right=(2, 3, 4))
    return text + (f"\nmore: --cursor {result.next_cursor}" if result.next_cursor else "")


def standing(name: str, reason: str | None, kill_requested_at: str | None) -> str:
    """A state with what a person wants to know beside it."""
    if kill_requested_at:
        return f"{name} (kill asked, may still cost)"
    return f"{name} ({reason})" if reason and reason not in _EXPECTED else name


_EXPECTED = ("agent-exit", "killed-by-user")  # reasons that their states say already


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
            ("handed on", f"by {result.parent}" if result.parent else None),
            ("provider", result.provider + (f" {result.region}" if result.region else "")),
            ("gpu", result.gpu or "none"),
            ("memory", f"{result.memory_gb:g} GiB" if result.memory_gb else "no limit"),
            ("cpu", f"{result.cpu:g}"),
            ("created", f"{result.created_at} ({age(result.created_at)} ago)"),
            ("started", result.started_at),
            ("ends by", result.ends_by),
            ("ended", ended),
            ("exit code", str(result.exit_code) if result.exit_code is not None else None),
            (
                "spent",
                f"{money(result.spent_usd)}"
                + (f", {money(result.reserved_usd)} reserved" if result.reserved_usd else ""),
            ),
            (
                "billed",
                f"{money(result.provider_usd)} of compute, {result.provider} said {age(result.provider_usd_at)} ago"
                if result.provider_usd is not None
                else None,
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
    wrong = diagnosis(result.diagnosis)
    return "\n".join([lines, *(landed(result.result) if result.result else ()), *([wrong] if wrong else ())])


def _short(text: str | None) -> str | None:
    if text is None:
        return None
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else f"{flat[:300]}… ({len(text)} characters)"


def log_line(line: verbs.logs.LogLine) -> str:
    return f"{line.at[11:19]} [{line.kind}] {line.text}" if line.stream == "events" else line.text


def status(result: verbs.status.Result) -> str:
    held = result.budget
    config = state("ok" if result.config["ok"] else "broken")
    note = "" if result.config["files"] else "  (defaults; parhelia init writes a file)"
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.tasks["counts"].items())) or "none yet"
    left = f"{money(held['remaining_usd'])} left of {money(held['ceiling_usd'])}: {money(held['spent_usd'])} spent, {money(held['reserved_usd'])} reserved"
    lines = [
        f"config    {wrap(config + note, 10)}",
        *(f"          {wrap(clean(fault), 10)}" for fault in result.config["faults"]),
        f"tasks     {wrap(counts, 10)}",
        f"budget    {wrap(left, 10)}",
        *([f"          {colour(wrap(held['warning'], 10), 33)}"] if held["warning"] else ()),
        *(_provider(one) for one in result.providers),
    ]
    rows = [
        (row["task_id"], standing(row["state"], row["reason"], row["kill_requested_at"]), *_life(row))
        for row in result.tasks["active"]
    ]
    active = table(("TASK", "STATE", "AGE", "SPENT", "WHAT"), rows, paint=1, spare=(3, 2), right=(2, 3))
    return "\n".join([*lines, *(["", active] if active else ()), *([f"next: {result.next}"] if result.next else ())])


def _life(row: Mapping[str, Any]) -> tuple[str, ...]:
    return age(row["created_at"]), money(row["spent_usd"]), row["title"]


def _provider(one: verbs.status.Provider) -> str:
    verdict = f"{state('ok' if one.ok else 'not ok')}: " if one.observed or not one.ok else ""
    return f"{one.name:<9} {verdict}{wrap(clean(one.what), 10 + len('ok: '))}"
