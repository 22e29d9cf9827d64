"""How anything looks: output, colours, ages, money, sizes, columns. The only place that writes to the terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.errors import LocalFault, Problem
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
    "not": 31,
    "missing": 33,
    "warning": 33,
}


def out(text: str) -> None:
    """One piece of output, whole, on standard output: an interruption waits until it is written.

    Raises LocalFault `output-failed`, and BrokenPipeError where the reader has gone.
    """
    if not text:
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        sys.stdout.flush()
        files.write_all(1, (text if text.endswith("\n") else text + "\n").encode("utf-8", "backslashreplace"))
    except BrokenPipeError:
        raise
    except OSError as problem:
        said = f"Standard output cannot be written: {problem.strerror}."
        raise LocalFault("output-failed", said, "send it to a place with room") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def page(markdown: str) -> None:
    """A text of some length: drawn where a terminal shows it, as it was written elsewhere."""
    if width() is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        out(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=width())
    with console.capture() as drawn:
        console.print(Markdown(markdown))
    out(drawn.get())


def aside(text: str) -> None:
    """Something for the person beside the result, on standard error; nobody there to read it is no fault."""
    with suppress(OSError):
        files.write_all(
            2, (text if not text or text.endswith("\n") else text + "\n").encode("utf-8", "backslashreplace")
        )


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
    said = clean(what.message)
    stop = "" if said.endswith((".", "!", "?")) or not fix else "."
    aside(f"{colour('error', 31, 2)}[{what.code}]: {said}{stop}{fix}")


def as_json(result: Any) -> str:
    """One line of JSON with the schema's version."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **result.model_dump(mode="json")}, ensure_ascii=False)


def colour(text: str, code: int, descriptor: int = 1) -> str:
    """The text in a colour where a terminal shows it and nobody asked for none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not os.isatty(descriptor):
        return text
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def state(words: str) -> str:
    """A state in its colour; the word stays, so that nothing hangs on colour alone."""
    return colour(words, COLOURS.get(words.partition(" ")[0], 0))


def money(usd: float | None) -> str:
    if usd is None:
        return "-"
    number = f"${abs(usd):.2f}" if usd == 0 or abs(usd) >= 0.01 else f"${abs(usd):.4f}"
    return f"-{number}" if usd < 0 else number


def age(text: str | None, at: datetime | None = None) -> str:
    """How long ago, in the largest unit that says it."""
    if not text:
        return "-"
    seconds = max(0, int(((at or now()) - moment(text)).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def width() -> int | None:
    """Columns of the terminal, at least 40; None where nobody looks and nothing is cut."""
    return max(40, shutil.get_terminal_size((100, 24)).columns) if os.isatty(1) else None


def columns(text: str) -> int:
    """How many columns a terminal gives the text: wide letters two, marks above others none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def cut(text: str, room: int) -> str:
    """The text in at most `room` columns, with … where some is missing."""
    if columns(text) <= room:
        return text
    while text and columns(text) > room - 1:
        text = text[:-1]
    return text + "…"


def table(
    heads: tuple[str, ...],
    rows: list[tuple[str, ...]],
    *,
    paint: int | None = None,
    spare: tuple[int, ...] = (),
    right: tuple[int, ...] = (),
    room: int | None = None,
) -> str:
    """Columns as wide as they need in `room` columns (the terminal's), the last one cut to what is left.

    `paint` is the column of states. `spare` are those to leave out, the least needed first: where they say nothing
    in any row, and where the terminal is too narrow. `right` are those of numbers.
    """
    if not rows:
        return ""
    room = room or width()
    every = [heads, *rows]
    wide = [max(columns(row[at]) for row in every) for at in range(len(heads))]
    shown = [at for at in range(len(heads)) if at not in spare or any(row[at] not in ("", "-") for row in rows)]
    for at in spare:
        if room and at in shown and sum(wide[k] + 2 for k in shown[:-1]) + min(wide[shown[-1]], _LEAST) > room:
            shown.remove(at)
    if room:
        last = shown[-1]
        wide[last] = max(4, min(wide[last], room - sum(wide[at] + 2 for at in shown[:-1])))
    lines = [_row(row, shown, wide, right, paint if row is not heads else None) for row in every]
    lines[0] = colour(lines[0], 2)
    return "\n".join(lines)


_LEAST = 12  # columns that the last one keeps before others go


def _row(row: tuple[str, ...], shown: list[int], wide: list[int], right: tuple[int, ...], paint: int | None) -> str:
    cells = []
    for at in shown:
        text = cut(row[at], wide[at])
        pad = " " * (wide[at] - columns(text))
        drawn = state(text) if at == paint else text
        cells.append(pad + drawn if at in right else drawn + (pad if at != shown[-1] else ""))
    return "  ".join(cells).rstrip()


def wrap(text: str, indent: int = 0) -> str:
    """Words in lines that fit the terminal, all but the first moved in; as it is where nobody looks."""
    room = width()
    if room is None or columns(text) + indent <= room:
        return text
    import textwrap

    lines = textwrap.wrap(text, max(room - indent, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def pairs(rows: list[tuple[str, str | None]]) -> str:
    """`name: value` lines; rows without a value are left out."""
    kept = [(name, value) for name, value in rows if value not in (None, "")]
    wide = max((len(name) for name, _ in kept), default=0) + 1
    return "\n".join(f"{name + ':':<{wide}} {wrap(value or '', wide + 1)}" for name, value in kept)


def bar(share: float, long: int) -> str:
    """A share of a whole as a bar that also reads without colour."""
    full = round(min(max(share, 0), 1) * long)
    return "█" * full + "░" * (long - full)
