"""How anything looks: output, colours, ages, money, sizes, columns. The only place that writes to the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import datetime
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import moment, now
from parhelia_mcp.plain import clean

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


def size(count: float) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""
