"""How far something long has come: one line on a terminal's standard error, gone when it is done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parhelia_mcp import files
from parhelia_mcp.render.text import cut, size

EVERY_S = 0.1
SOON_S = 0.5  # what is done by then is not worth a line

Seen = Callable[[int, int, int], None]  # files, bytes, bytes in all


@contextmanager
def progress(what: str) -> Iterator[Seen]:
    """A function to tell how much is done; where nobody looks it says nothing."""
    began = time.monotonic()
    drawn = 0.0

    def seen(count: int, done: int, total: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if now - began < SOON_S or now - drawn < EVERY_S:
            return
        drawn = now
        rate = done / (now - began)
        left = f", {max(0.0, total - done) / rate:.0f} s left" if rate and total else ""
        text = f"{what}: {count} files, {size(done)} of {size(total)}, {size(rate)}/s{left}"
        _draw(cut(text, shutil.get_terminal_size().columns - 1))

    if not os.isatty(2):
        yield lambda count, done, total: None
        return
    try:
        yield seen
    finally:
        if drawn:
            _draw("")


def _draw(text: str) -> None:
    files.write_all(2, f"\r\x1b[K{text}".encode())


def bell() -> None:
    """Ring the terminal, where standard error is one."""
    if os.isatty(2):
        files.write_all(2, b"\a")
