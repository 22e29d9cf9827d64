"""Which TCP ports a session listens on: those whose every listener is held by a process with the session's mark."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def listening(mark: str, port: int) -> bool:
    """Whether `port` belongs to processes with `mark` (NAME=VALUE) in their environment and to nobody else.

    False where the system cannot say.
    """
    if sys.platform != "linux":
        return False
    wanted = _listeners(port)
    return bool(wanted) and wanted <= _sockets(mark.encode())


def _listeners(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(mark: bytes) -> set[str]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            found |= _sockets_of(process, mark)
    return found


def _sockets_of(process: Path, mark: bytes) -> set[str]:
    try:
        if mark not in (process / "environ").read_bytes().split(b"\0"):
            return set()
        return {os.readlink(entry) for entry in (process / "fd").iterdir()}  # noqa: PTH115  not a path
    except OSError:  # it has ended, or it is another user's and so not ours
        return set()
