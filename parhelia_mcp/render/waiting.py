"""How far something long has come: one line on a terminal's standard error, gone when it is done."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from parhelia_mcp import files
from parhelia_mcp.model import Doing, Tell
from parhelia_mcp.plain import line, size
from parhelia_mcp.render.text import cut

EVERY_S = 0.1
SOON_S = 0.5  # what is done by then is not worth a line


@contextmanager
def progress(*, hidden: bool) -> Iterator[Tell | None]:
    """A function to tell how much is done, from any thread; None where nobody looks."""
    if hidden or not os.isatty(2):
        yield None
        return
    drawn = _Line()
    try:
        yield drawn.tell
    finally:
        drawn.close()


class _Line:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = self._since = time.monotonic()
        self._what: str | None = None
        self._drawn = 0.0
        self._closed = False

    def tell(self, doing: Doing | None) -> None:
        with self._lock:
            now = time.monotonic()
            if doing is None:
                self._wipe()
            elif not self._closed:
                if doing.what != self._what:  # what is seen first began with the command
                    self._what, self._since = doing.what, now if self._what else self._began
                if now - self._began >= SOON_S and now - self._drawn >= EVERY_S:
                    self._drawn = now
                    _draw(cut(_said(doing, now - self._since), shutil.get_terminal_size().columns - 1))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._wipe()

    def _wipe(self) -> None:
        if self._drawn:
            self._drawn = 0.0
            _draw("")


def _said(doing: Doing, elapsed: float) -> str:
    """What is done, with what is known: files, bytes, how fast, how long it took and takes."""
    parts = [f"{doing.files:,} files"] if doing.files else []
    if doing.done or doing.total:
        parts.append(size(doing.done) + (f" of {size(doing.total)}" if doing.total else ""))
    if doing.done and elapsed:
        parts.append(f"{size(doing.done / elapsed)}/s")
    parts.append(f"{elapsed:.0f} s")
    if doing.done and doing.total:
        parts.append(f"{max(0, doing.total - doing.done) * elapsed / doing.done:.0f} s left")
    return f"{line(doing.what)}: {', '.join(parts)}"


def _draw(text: str) -> None:
    files.write_all(2, f"\r\x1b[K{text}".encode())


def bell() -> None:
    """Ring the terminal, where standard error is one."""
    if os.isatty(2):
        files.write_all(2, b"\a")
