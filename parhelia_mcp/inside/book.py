"""What the meter has promised and paid, in an append-only file that survives a kill at any instant.

One JSON line an entry: `{"open": N, "micro": M, "model": ...}` before request N is forwarded, waited for until it is on the disk,
and `{"close": N, "micro": M, ...}` when its price is known. An entry opened and never closed may have cost anything
up to its amount, so reading the file again closes it at its whole amount. A torn last line was never acted on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.errors import Corrupted
from parhelia_mcp.failpoint import reach


class NoRoom(Exception):
    """The reservation would pass the cap."""


class Book:
    """Reservations and charges of one session, in micro-dollars; `spent + reserved <= cap` after every `reserve`.

    Only a charge above its own reservation can pass the cap, and then nothing more is reserved.
    """

    def __init__(self, path: Path, cap_micro: int | None) -> None:
        self.cap_micro = cap_micro
        self.spent_micro = 0
        self.closed: list[dict[str, Any]] = []  # every charge that the file held when it was opened
        self._open: dict[int, dict[str, Any]] = {}
        self._last = 0
        self._replay(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        files.sync_dir(path.parent)
        for number, entry in list(self._open.items()):
            self.closed.append(self.settle(number, entry["micro"], {"model": entry["model"], "estimated": True}))

    def _replay(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else b""
        end = 0
        for line, end in files.whole_lines(data):  # noqa: B007 - the last `end` is where whole lines stop
            entry = _entry(line, path)
            if "open" in entry:
                self._last = max(self._last, entry["open"])
                self._open[entry["open"]] = entry
            elif self._open.pop(entry["close"], None) is not None:
                self.spent_micro += entry["micro"]
                self.closed.append(entry)
        if end < len(data):
            os.truncate(path, end)

    @property
    def reserved_micro(self) -> int:
        return sum(entry["micro"] for entry in self._open.values())

    @property
    def left_micro(self) -> int | None:
        """What can still be reserved; None without a cap."""
        return None if self.cap_micro is None else max(self.cap_micro - self.spent_micro - self.reserved_micro, 0)

    @property
    def open(self) -> int:
        """How many reservations are not settled."""
        return len(self._open)

    def reserve(self, micro: int, model: str) -> int:
        """The number of a new reservation, which is on the disk. Raises NoRoom."""
        left = self.left_micro
        if left is not None and micro > left:
            raise NoRoom
        self._last += 1
        entry = {"open": self._last, "micro": micro, "model": model}
        self._append(entry)
        self._open[self._last] = entry
        reach("meter-before-fsync")
        os.fsync(self._file)
        return self._last

    def hold(self, micro: int) -> None:
        """Take money out of what may be spent, for another session; a negative amount gives it back. Raises NoRoom.

        It is not in the file: a runner lives as long as its session, and the ledger knows what it handed on.
        """
        if self.cap_micro is None or micro > self.cap_micro - self.spent_micro - self.reserved_micro:
            raise NoRoom
        self.cap_micro -= micro

    def settle(self, number: int, micro: int, detail: dict[str, Any]) -> dict[str, Any]:
        """Charge `micro` for reservation `number` and let the rest of it go; the entry as written."""
        entry = {"close": number, "micro": micro, **detail}
        self._append(entry)  # lost in a power cut, it is charged in full: no need to wait for the disk
        del self._open[number]
        self.spent_micro += micro
        return entry

    def _append(self, entry: dict[str, Any]) -> None:
        end = os.fstat(self._file).st_size
        try:
            files.write_all(self._file, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        except OSError:  # a full disk must not leave a half line for the next entry to be glued to
            os.ftruncate(self._file, end)
            raise

    def close(self) -> None:
        os.close(self._file)


def _entry(line: bytes, path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        int(entry["micro"]) + int(entry.get("open") or entry["close"])
    except (ValueError, KeyError, TypeError, AttributeError):
        what = f"{path} holds a line that is no entry, so what the session has spent is not known."
        raise Corrupted("meter-book-damaged", what, "start the next session") from None
    return entry
