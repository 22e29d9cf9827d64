"""The two ways a checkpoint fails: what is stored is damaged, or this machine's disk refuses."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from parhelia_mcp.errors import Corrupted, LocalFault

_FAULTS = {
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "disk-full",
    errno.EROFS: "not-writable",
    errno.EACCES: "not-writable",
    errno.EPERM: "not-writable",
}


def damaged(what: str) -> Corrupted:
    return Corrupted("damaged-checkpoint", f"{what}.", "parhelia checkpoint list")


@contextmanager
def local_faults(doing: str) -> Iterator[None]:
    """Turn what this machine's disk refuses into LocalFault; nothing older has been touched then."""
    try:
        yield
    except OSError as problem:
        code = _FAULTS.get(problem.errno or 0, "disk-fault")
        hints = {"disk-full": "df -h", "not-writable": "parhelia doctor"}
        raise LocalFault(
            code,
            f"{doing} stopped: {problem.strerror or problem}. Every earlier checkpoint is as it was.",
            hints.get(code, "parhelia checkpoint verify"),
        ) from problem
