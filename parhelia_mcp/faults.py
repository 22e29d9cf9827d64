"""Faults of our own: the traceback of what nobody expected, kept under an id that can be passed on."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from parhelia_mcp import files
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import timestamp

NAME = "faults.log"
RECENT = 1 << 18  # bytes read back
_HEAD = re.compile(r"^(\S+) fault ([0-9a-f]{8}) in (.*)$", re.MULTILINE)


class Recorded(NamedTuple):
    id: str
    path: Path | None  # None: no disk took it


def record(ctx: Context, fault: BaseException, where: str) -> Recorded:
    """Keep the traceback in PARHELIA_HOME; in a private file of the temporary directory where that cannot be written."""
    id = os.urandom(4).hex()
    text = "".join(traceback.format_exception(fault))
    entry = f"{timestamp()} fault {id} in {where}: {type(fault).__name__}\n{text}\n".encode(errors="replace")
    for place in (lambda: ctx.home / NAME, lambda: Path(tempfile.gettempdir()) / f"parhelia-fault-{id}.txt"):
        with suppress(OSError, Problem):
            path = place()
            _append(path, entry)
            return Recorded(id, path)
    return Recorded(id, None)


def _append(path: Path, entry: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        files.write_all(descriptor, entry)
    finally:
        os.close(descriptor)


def recent(ctx: Context) -> str:
    """The end of what was recorded."""
    path = ctx.home / NAME
    if not path.exists():
        return ""
    return files.read_at(path, max(0, path.stat().st_size - RECENT), RECENT).decode(errors="replace")


def heads(ctx: Context) -> list[tuple[str, str, str]]:
    """Time, id and place of what was recorded lately, the oldest first."""
    return _HEAD.findall(recent(ctx))
