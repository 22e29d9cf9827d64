"""Which TCP ports a session listens on: those that its processes hold, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

from parhelia_mcp import processes

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def listening(session: str, port: int) -> bool:
    """Whether every listener on `port` is held by a process of the session. Reads /proc, some 10 ms."""
    wanted = _listeners(port)
    return bool(wanted) and wanted <= _sockets(session)


def _listeners(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(session: str) -> set[str]:
    found = set()
    for pid in processes.members(session):
        try:
            found |= {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115  not a path
        except OSError:  # it has ended
            continue
    return found
