"""The session's record: `events.jsonl`, one event a line, numbered without gaps, readable whatever died when."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from parhelia_mcp import files, model

VERSION = 1
LONGEST = 1 << 16  # bytes of one line; a longer text is cut, so that recovery finds the last line in one read
_TEXT = 4_000  # characters kept of any string in an event that is too long


class Journal:
    """Appends events to a file. Opening it cuts a torn last line and goes on with the number after the last one."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.seq = self._recover()

    def _recover(self) -> int:
        size = os.fstat(self._descriptor).st_size
        tail = os.pread(self._descriptor, 2 * LONGEST, max(0, size - 2 * LONGEST))
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            os.ftruncate(self._descriptor, size - len(tail) + len(whole))
        for line in reversed(whole.splitlines()):
            try:
                return int(json.loads(line)["seq"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that is damaged, not torn: the one before it has the number
        return 0

    def append(self, kind: str, text: str, **fields: Any) -> int:
        """Record an event and return its number; `text` is what a person reads of it. Raises OSError: disk full."""
        event = {"v": VERSION, "seq": self.seq + 1, "at": model.timestamp(), "kind": kind, "text": text, **fields}
        line = _line(event)
        if len(line) > LONGEST:
            line = _line({key: _cut(value) for key, value in event.items()})
        if len(line) > LONGEST:
            kept = {"v", "seq", "at", "kind", "text"}
            line = _line({**{key: _cut(event[key]) for key in kept}, "left_out": sorted(event.keys() - kept)[:50]})
        size = os.fstat(self._descriptor).st_size
        try:
            files.write_all(self._descriptor, line)
        except OSError:
            os.ftruncate(self._descriptor, size)  # a full disk may have taken a part of the line
            raise
        self.seq += 1
        return self.seq

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=True, separators=(",", ":"), default=str).encode() + b"\n"


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _TEXT:
        return value[:_TEXT] + f"... ({len(value)} characters)"
    return value
