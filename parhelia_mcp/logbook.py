"""A session's log: its journal and its agent's output as one sequence of lines, read from any place in bounded memory.

Every event says how long stdout.log and stderr.log were when it was written (`out`), so output stands before the first event
that already counted it. A position is three byte offsets (journal, stdout, stderr): everything before it has been read.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from parhelia_mcp.errors import Usage
from parhelia_mcp.plain import clean

LONGEST = 1 << 16  # bytes of one line; a longer one is shown in pieces
BLOCK = 1 << 18
FURTHEST = 1 << 24  # how far back the start of a tail is looked for: a log without newlines must not be read whole
STREAMS = ("all", "events", "output", "system")
SYSTEM = frozenset(
    {
        "entrypoint",
        "config",
        "hook",
        "workspace",
        "limit",
        "warning",
        "output-gap",
        "checkpoint",
        "agent-exited",
        "result",
    }
)


class Position(NamedTuple):
    """Everything before these offsets of the journal, stdout.log and stderr.log has been read."""

    journal: int = 0
    stdout: int = 0
    stderr: int = 0

    def __str__(self) -> str:
        return f"{self.journal}.{self.stdout}.{self.stderr}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises Usage `bad-cursor`."""
        match = re.fullmatch(r"(\d{1,15})\.(\d{1,15})\.(\d{1,15})", text)
        if not match:
            raise Usage("bad-cursor", f"{text[:80]!r} is not a cursor of this log.", "start again without --cursor")
        return cls(*map(int, match.groups()))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log, cleaned. `stream` is events, stdout or stderr; `after` is the position behind it."""

    at: str
    stream: str
    kind: str
    text: str
    after: Position


START = Position()


class _Event(NamedTuple):
    start: int
    end: int
    data: dict[str, Any]


def forward(folder: Path, begin: Position = START, *, stream: str = "all", ended: bool = False) -> Iterator[Line]:
    """Every line from `begin` on. An output line without its newline yet is left out, unless the session has ended."""
    position, at = begin, ""
    for event in _events(folder / "events.jsonl", begin.journal):
        out, err = _lengths(event.data, position)
        for line in _output(folder, position, out, err, at, partial=False):
            position = line.after
            if stream in ("all", "output"):
                yield line
        at = str(event.data.get("at", at))
        position = position._replace(journal=event.end)
        if _shown(stream, event.data):
            yield Line(at, "events", str(event.data.get("kind", "")), clean(str(event.data.get("text", ""))), position)
    sizes = _size(folder / "stdout.log"), _size(folder / "stderr.log")
    if stream in ("all", "output"):
        yield from _output(folder, position, *sizes, at, partial=ended)


def tail(folder: Path, count: int, *, stream: str = "all") -> Position:
    """Where to begin so that `forward` gives the last `count` lines."""
    with_output = stream in ("all", "output")
    ends = {name: _size(folder / f"{name}.log") if with_output else 0 for name in ("stdout", "stderr")}
    left = count
    journal_end = _size(folder / "events.jsonl")
    for event in _events_backwards(folder / "events.jsonl"):
        begin = (
            dict(zip(("stdout", "stderr"), _lengths(event.data, None), strict=True))
            if with_output
            else {"stdout": 0, "stderr": 0}
        )
        for name in ("stderr", "stdout"):
            begin[name] = min(begin[name], ends[name])
            found, start = _back(folder / f"{name}.log", begin[name], ends[name], left)
            left -= found
            if left == 0:
                other = {**begin, **ends} if name == "stderr" else {**ends, "stderr": begin["stderr"]}
                return _position(folder, event.end, {**other, name: start})
            ends[name] = begin[name]
        if _shown(stream, event.data):
            left -= 1
        if left == 0:
            return _position(folder, event.start, ends)
        journal_end = event.start
    if with_output:
        for name in ("stderr", "stdout"):
            found, start = _back(folder / f"{name}.log", 0, ends[name], left)
            left -= found
            ends[name] = start
            if left == 0:
                break
        else:
            ends = {"stdout": 0, "stderr": 0}
    return _position(folder, journal_end, ends)


def compiled(pattern: str) -> re.Pattern[str]:
    """The expression, without regard to case. Raises Usage `bad-pattern`."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as problem:
        raise Usage(
            "bad-pattern", f"{pattern[:80]!r} is not a regular expression: {problem}.", "--grep error"
        ) from None


def search(
    folder: Path, pattern: str, *, stream: str, count: int, ended: bool, begin: Position = START
) -> tuple[list[Line], Position]:
    """The last `count` lines that match a regular expression, and the end of what was read."""
    wanted = compiled(pattern)
    found: deque[Line] = deque(maxlen=count)
    position = begin
    for line in forward(folder, begin, stream=stream, ended=ended):
        position = line.after
        if wanted.search(f"{line.kind} {line.text}"):
            found.append(line)
    return list(found), position


def _shown(stream: str, event: dict[str, Any]) -> bool:
    kind = event.get("kind")
    if stream == "all":
        return kind != "message"  # what the agent says is its output already
    return stream == "events" or stream == "system" and kind in SYSTEM


def _lengths(event: dict[str, Any], position: Position | None) -> tuple[int, int]:
    out = event.get("out")
    if isinstance(out, list) and len(out) == 2 and all(isinstance(part, int) for part in out):
        return out[0], out[1]
    return (position.stdout, position.stderr) if position else (0, 0)


def _output(folder: Path, position: Position, out: int, err: int, at: str, *, partial: bool) -> Iterator[Line]:
    """Output lines that end within the given lengths, standard output first."""
    for name, end in (("stdout", out), ("stderr", err)):
        for data, after in _lines(folder / f"{name}.log", getattr(position, name), end, partial=partial):
            position = position._replace(**{name: after})
            yield Line(at, name, "", clean(data.decode(errors="replace")), position)


def _lines(path: Path, start: int, end: int, *, partial: bool) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a file between two offsets, each with the offset behind it."""
    if start >= end or not path.exists():
        return
    with path.open("rb") as log:
        log.seek(start)
        while start < end:
            data = log.readline(min(LONGEST, end - start))
            if not data or (not data.endswith(b"\n") and len(data) < LONGEST and not partial):
                return
            start += len(data)
            yield data.rstrip(b"\n"), start


def _events(path: Path, start: int) -> Iterator[_Event]:
    if not path.exists():
        return
    with path.open("rb") as journal:
        journal.seek(start)
        for data in journal:
            if not data.endswith(b"\n"):
                return
            yield _Event(start, start + len(data), _parsed(data))
            start += len(data)


def _events_backwards(path: Path) -> Iterator[_Event]:
    size = _size(path)
    if not size:
        return
    with path.open("rb") as journal:
        end, rest, torn = size, b"", True
        while end > 0:
            begin = max(0, end - BLOCK)
            data = os.pread(journal.fileno(), end - begin, begin) + rest
            lines = data.splitlines(keepends=True)
            rest = lines.pop(0) if begin else b""
            offset = begin + len(data)
            for raw in reversed(lines):
                offset -= len(raw)
                if torn and not raw.endswith(b"\n"):
                    torn = False
                    continue
                torn = False
                yield _Event(offset, offset + len(raw), _parsed(raw))
            end = begin


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _back(path: Path, begin: int, end: int, count: int) -> tuple[int, int]:
    """How many lines end in (begin, end], `count` at most, and where the first of those starts."""
    if count <= 0 or end <= begin:
        return 0, end
    floor = max(begin, end - FURTHEST)
    found, upper = 0, end
    with path.open("rb") as log:
        if os.pread(log.fileno(), 1, end - 1) != b"\n":
            found = 1  # the last line has no newline yet
        while upper > floor:
            lower = max(floor, upper - BLOCK)
            data = os.pread(log.fileno(), upper - lower, lower)
            at = len(data)
            while (at := data.rfind(b"\n", 0, at)) >= 0:
                if found == count:
                    return count, lower + at + 1
                found += 1
            upper = lower
    return found, floor


def _position(folder: Path, journal: int, ends: dict[str, int]) -> Position:
    """A position whose output offsets stand at the starts of lines."""
    return Position(journal, *(_line_start(folder / f"{name}.log", ends[name]) for name in ("stdout", "stderr")))


def _line_start(path: Path, offset: int) -> int:
    if offset <= 0:
        return 0
    with path.open("rb") as log:
        low = max(0, offset - LONGEST)
        found = os.pread(log.fileno(), offset - low, low).rfind(b"\n")
    return offset if found < 0 and low else low + found + 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
