"""Exclusive locks on files, and asking about them without taking them.

Open-file-description locks where the kernel has them (Linux), flock elsewhere. The kernel frees a lock when its
holder dies, and a probe with `held` never makes a starter fail. A lock file is never unlinked: two could hold it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parhelia_mcp.errors import Busy

_SET, _GET = 37, 36  # F_OFD_SETLK and F_OFD_GETLK of Linux; the fcntl module of 3.11 lacks their names
_LINUX = os.uname().sysname == "Linux"


def _request(kind: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def try_acquire(path: Path) -> int | None:
    """The descriptor that holds the exclusive lock on `path`, or None where somebody else holds it.

    Close it to let go. It is not inherited by programs started with exec.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _LINUX:
            fcntl.fcntl(descriptor, _SET, _request(fcntl.F_WRLCK))
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def held(path: Path) -> bool:
    """Whether anybody holds the lock on `path`; on Linux this takes nothing, so it disturbs nobody."""
    if not _LINUX:
        descriptor = try_acquire(path)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(descriptor, _GET, _request(fcntl.F_WRLCK))
        return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, wait_s: float = 0.0, what: str = "") -> Iterator[int]:
    """Hold the exclusive lock on `path`; raises Busy `busy` when it is not free within `wait_s`."""
    deadline = time.monotonic() + wait_s
    while (descriptor := try_acquire(path)) is None:
        if time.monotonic() >= deadline:
            raise Busy("busy", f"{what or path.name} is in use by another process.", "try again in a moment")
        time.sleep(0.01)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
