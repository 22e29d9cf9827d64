"""Results as text for people, and the only place that prints. Everything remote is cleaned before it gets here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from parhelia_mcp import files
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import moment, now
from parhelia_mcp.plain import clean

if TYPE_CHECKING:
    from parhelia_mcp import verbs

SCHEMA_VERSION = 1
FIRST_STEPS = """Parhelia hands work to separate Claude Code sessions and brings it back as a branch.

  parhelia run -- echo hello          run a command in a session of its own, here, with no account
  parhelia submit "Fix the tests"     hand a task to an agent; then: parhelia logs ID --follow
  parhelia init                       write a commented parhelia.toml and connect Claude Code

parhelia --help shows every command; parhelia help troubleshooting says what to do when something is wrong."""
COLOURS = {
    "completed": 32,
    "running": 36,
    "waiting": 33,
    "starting": 36,
    "pending": 2,
    "failed": 31,
    "killed": 35,
    "lost": 31,
    "ok": 32,
    "broken": 31,
}


def out(text: str) -> None:
    """One piece of output, whole, on standard output."""
    if text:
        sys.stdout.flush()
        files.write_all(1, (text if text.endswith("\n") else text + "\n").encode("utf-8", "backslashreplace"))


def aside(text: str) -> None:
    """Something for the person beside the result, on standard error."""
    if text:
        files.write_all(2, (text if text.endswith("\n") else text + "\n").encode("utf-8", "backslashreplace"))


def problem(what: Problem, *, as_json: bool) -> None:
    if as_json:
        out(
            json.dumps(
                {
                    "schema_version": SCHEMA_VERSION,
                    "error": {key: clean(value) for key, value in what.as_dict().items()},
                },
                ensure_ascii=False,
            )
        )
        return
    fix = f" Fix: {clean(what.hint)}" if what.hint else ""
    aside(f"{colour('error', 31, 2)}[{what.code}]: {clean(what.message)}{fix}")


def as_json(result: Any) -> str:
    """One line of JSON with the schema's version."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **result.model_dump(mode="json")}, ensure_ascii=False)


def colour(text: str, code: int, descriptor: int = 1) -> str:
    """The text in a colour where a terminal shows it and nobody asked for none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not os.isatty(descriptor):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def state(name: str, width: int = 0) -> str:
    return colour(name.ljust(width), COLOURS.get(name, 0))


def money(usd: float | None) -> str:
    if usd is None:
        return "-"
    return f"${usd:.2f}" if usd == 0 or abs(usd) >= 0.01 else f"${usd:.4f}"


def age(text: str | None, at: datetime | None = None) -> str:
    """How long ago, in the largest unit that says it."""
    if not text:
        return "-"
    seconds = max(0, int(((at or now()) - moment(text)).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def width() -> int:
    return max(40, shutil.get_terminal_size((100, 24)).columns) if os.isatty(1) else 1000


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]], *, paint: int | None = None) -> str:
    """Columns as wide as they need, the last one cut to what the terminal has; `paint` is the column of states."""
    if not rows:
        return ""
    wide = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    room = width() - sum(wide[:-1]) - 2 * (len(wide) - 1)
    lines = []
    for row in (heads, *rows):
        cells = []
        for at, cell in enumerate(row):
            last = at == len(row) - 1
            text = (
                (cell if len(cell) <= max(room, 10) else cell[: max(room, 10) - 1] + "…")
                if last
                else cell.ljust(wide[at])
            )
            cells.append(state(cell, wide[at]) if at == paint and row is not heads and not last else text)
        lines.append("  ".join(cells).rstrip())
    lines[0] = colour(lines[0], 2)
    return "\n".join(lines)


def pairs(rows: list[tuple[str, str | None]]) -> str:
    """`name: value` lines; rows without a value are left out."""
    kept = [(name, value) for name, value in rows if value not in (None, "")]
    wide = max((len(name) for name, _ in kept), default=0) + 1
    return "\n".join(f"{name + ':':<{wide}} {value}" for name, value in kept)


# Work


def submitted(result: verbs.submit.Result) -> str:
    if result.task_id is None:
        verdict = f" ({result.note})" if result.note else ""
        return f"would reserve up to {money(result.estimate_usd)}; {money(result.remaining_usd)} would be left{verdict}\nnext: {result.next}"
    head = f"{result.task_id}  {state(result.state)}  reserved {money(result.reserved_usd)}, {money(result.remaining_usd)} left"
    return "\n".join(
        part for part in (head, clean(result.note) if result.note else None, f"next: {result.next}") if part
    )


def ran(result: verbs.run.Result) -> str:
    """The last lines of `run` and `--wait`."""
    how = f"exit code {result.exit_code}" if result.exit_code is not None else result.reason or ""
    lines = [f"{result.session_id}  {state(result.state)}  {how}  {money(result.spent_usd)}"]
    if result.detail and result.state != "completed":
        lines.append(clean(result.detail))
    return "\n".join(lines + _landed(result.result))


def _landed(result: dict[str, Any] | None) -> list[str]:
    if not result:
        return ["no file was changed"]
    name = result.get("branch") or result.get("ref")
    lines = (
        [f"work: {name}  ({result.get('files_changed')} files, commit {str(result.get('commit'))[:12]})"]
        if name
        else []
    )
    return lines + [clean(note) for note in result.get("notes") or ()]


def killed(result: verbs.kill.Result) -> str:
    note = f"  ({result.note})" if result.note else ""
    return f"{result.session_id}  {state(result.state)}  spent {money(result.spent_usd)}{note}"


def pulled(result: verbs.pull.Result) -> str:
    lines = [
        f"{result.session_id}: {result.files_changed} files in {result.branch or result.ref or 'the result snapshot'}"
    ]
    if result.risky_paths:
        lines.append(
            "these would run something on your machine: " + ", ".join(clean(path) for path in result.risky_paths)
        )
    lines += [clean(note) for note in result.notes]
    lines += [f"applied: {clean(path)}" for path in result.applied_paths]
    return "\n".join([*lines, f"next: {result.next}"])


def left(result: verbs.attach.Result) -> str:
    """What a person reads who has left a session's terminal."""
    lines = [f"left {result.session_id}: {state(result.state)}"]
    if result.checkpoint:
        held = result.checkpoint
        lines[0] += f", checkpoint {clean(str(held.get('checkpoint_id')))} ({held.get('files')} files)"
    lines += [clean(note) for note in result.notes]
    hours, minutes = divmod((result.time_left_s or 0) // 60, 60)
    rest = pairs(
        [
            ("spent", money(result.spent_usd)),
            ("money left", money(result.remaining_usd) if result.remaining_usd is not None else None),
            ("time left", f"{hours} h {minutes} min" if result.time_left_s is not None else None),
            ("next", result.next),
        ]
    )
    return "\n".join([*lines, rest])


# Looking


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
    return "\n".join([lines, *(_landed(result.result) if result.result else ())])


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


# Money and settings


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


# Checkpoints


def size(count: float) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def checkpoints(result: verbs.checkpoint.ListResult) -> str:
    rows = [
        (
            one.checkpoint_id,
            one.session_id or "-",
            age(one.created_at),
            one.trigger,
            str(one.files),
            size(one.bytes),
            _kept(one),
        )
        for one in result.checkpoints
    ]
    text = table(("CHECKPOINT", "SESSION", "AGE", "WHY", "FILES", "SIZE", "STATE"), rows) or "no checkpoints"
    return text + "".join(f"\n{colour('damaged', 31)}: {name}" for name in result.damaged)


def _kept(one: verbs.checkpoint.Row) -> str:
    return ("consistent" if one.consistent else f"in a turn{f' ({one.pending_tool})' if one.pending_tool else ''}") + (
        ", partial" if one.partial else ""
    )


def checkpoint(one: verbs.checkpoint.Row) -> str:
    lines = pairs(
        [
            ("checkpoint", one.checkpoint_id),
            ("session", one.session_id),
            ("taken", f"{one.created_at} ({age(one.created_at)} ago), {one.trigger}"),
            ("state", _kept(one)),
            ("holds", f"{one.files} files, {size(one.bytes)} ({size(one.stored_bytes)} stored)"),
            ("parent", one.parent),
            ("expires", one.expires_at),
            ("turns", str(one.turns) if one.turns else None),
        ]
    )
    skipped = [f"skipped: {each['path']} ({each['why']})" for each in one.skipped]
    return "\n".join([lines, *skipped, *(f"changed while read: {path}" for path in one.changed)])


def difference(result: verbs.checkpoint.DiffResult, *, stat: bool) -> str:
    if result.text is not None:
        return result.text or "no difference"

    def sized(path: str) -> str:
        before, after = result.sizes.get(path, (0, 0))
        return f"  {size(before)} -> {size(after)}" if stat else ""

    marks = (("+", result.added), ("~", result.changed), ("-", result.removed))
    lines = [f"{mark} {path}{sized(path)}" for mark, paths in marks for path in paths]
    return "\n".join(
        [*lines, f"{len(result.added)} added, {len(result.changed)} changed, {len(result.removed)} removed"]
    )


def verified(result: verbs.checkpoint.VerifyResult) -> str:
    if result.ok:
        return f"{result.checkpoint_id}  {state('ok')}: every byte is right"
    return "\n".join([f"{result.checkpoint_id}  {state('broken')}", *result.problems])


def removed(result: verbs.checkpoint.Removed) -> str:
    names = ", ".join(result.removed) or "nothing"
    return f"removed {names}; {result.packs} packs, {size(result.bytes)} given back"


def resumed(result: verbs.resume.Result) -> str:
    if result.target:
        lines = [f"{result.checkpoint_id} restored into {result.target}: {result.files} files"]
        lines += [f"saved what was there: {result.saved}"] if result.saved else []
        lines += [f"without setuid bits: {', '.join(result.lowered)}"] if result.lowered else []
        return "\n".join([*lines, result.note or "", f"next: {result.next}"])
    return f"{result.session_id}  {state(result.state)}  from {result.checkpoint_id}  reserved {money(result.reserved_usd)}\nnext: {result.next}"
