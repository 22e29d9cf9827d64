"""Processes of a session: who they are, what they use, and ending all of them.

A process is found by the marker in its environment, or as a descendant of one that is known. It is identified by
pid, start time and boot: a pid alone may be a stranger's by now. A zombie is dead. Read from /proc, so Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

MARKER = "PARHELIA_SESSION"  # in the environment of every process of a session
CLEAN_SCANS = 10  # one clean scan leaves survivors of a process that forks a successor every 2 ms; ten did not
_STOPPING_SCANS = 20  # a process that forks faster than it is found is let go on
TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SUBREAPER = 1, 4, 36


class Identity(NamedTuple):
    """One process, for good."""

    pid: int
    start: int  # clock ticks after boot
    boot_id: str


class Stat(NamedTuple):
    """One row of the process table."""

    ppid: int
    group: int
    session: int
    state: str
    start: int
    ticks: int  # CPU of the process and of the children it has waited for
    rss: int  # bytes

    @property
    def dead(self) -> bool:
        return self.state in "ZXx"


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """The row of `pid`, or None where there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(descriptor, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    part = raw[raw.rindex(b")") + 2 :].split()
    ticks = sum(int(part[index]) for index in (11, 12, 13, 14))
    return Stat(int(part[1]), int(part[2]), int(part[3]), part[0].decode(), int(part[19]), ticks, int(part[21]) * _PAGE)


def identity(pid: int) -> Identity | None:
    """Who `pid` is now, or None when it is dead."""
    row = stat(pid)
    return None if row is None or row.dead else Identity(pid, row.start, boot_id())


def alive(who: Identity) -> bool:
    return identity(who.pid) == who


def table() -> dict[int, Stat]:
    """Every process of this machine that we can see."""
    rows = ((int(name), stat(int(name))) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 -- 2x faster
    return {pid: row for pid, row in rows if row is not None}


def marked(pid: int, session: str) -> bool:
    """Whether the environment of `pid` names the session; False where it cannot be read."""
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        data = b"\0"
        while part := os.read(descriptor, 1 << 16):
            data += part
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return f"\0{MARKER}={session}\0".encode() in data


def members(session: str, roots: Iterable[int] = (), spare: Collection[int] = ()) -> dict[int, Stat]:
    """The living processes of a session: marked ones, `roots`, and all that descend from them, without `spare`."""
    rows = table()
    found = _tree(rows, {pid for pid in rows if marked(pid, session)} | set(roots))
    return {pid: rows[pid] for pid in found if pid in rows and pid not in spare and not rows[pid].dead}


def descendants(pid: int) -> dict[int, Stat]:
    """The living processes that descend from `pid`."""
    rows = table()
    return {
        found: rows[found] for found in _tree(rows, {pid}) if found != pid and found in rows and not rows[found].dead
    }


def _tree(rows: dict[int, Stat], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.ppid, []).append(pid)
    queue = list(roots)
    while queue:
        new = [child for child in children.get(queue.pop(), ()) if child not in roots]
        roots.update(new)
        queue.extend(new)
    return roots


def end(
    find: Callable[[], Mapping[int, Stat]], *, spare: Collection[int] = (), within_s: float = 5.0
) -> Collection[int]:
    """SIGKILL whatever `find` finds until ten scans in a row find nothing; returns what was left after `within_s`.

    Process groups go as a whole, which nothing that forks can outrun, but for those that we or `spare` are in.
    """
    deadline = time.monotonic() + within_s
    kept = {0, 1, os.getpgrp(), *(row.group for row in map(stat, spare) if row)}  # kill(-1) is everybody
    groups: set[int] = set()
    clean = 0
    while clean < CLEAN_SCANS:
        left = find()
        clean = 0 if left else clean + 1
        if left and time.monotonic() > deadline:
            return left
        groups |= {row.group for row in left.values()} - kept
        send([*(-group for group in groups), *sorted(left, reverse=True)], signal.SIGKILL)
    return ()


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process, or with a negative number each group; one that is gone, or is not ours, is passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


@contextmanager
def stopped(find: Callable[[], Mapping[int, Stat]]) -> Iterator[None]:
    """Hold still whatever `find` finds while inside; what somebody else had stopped stays stopped after."""
    held: set[int] = set()
    try:
        for _ in range(_STOPPING_SCANS):
            new = {pid for pid, row in find().items() if row.state not in "Tt"} - held
            if not new:
                break
            send(new, signal.SIGSTOP)
            held |= new
        yield
    finally:
        send(held, signal.SIGCONT)


def shared_memory(pids: Iterable[int]) -> int:
    """Bytes the processes use together, what they share counted once (PSS); RSS of one whose PSS cannot be read."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            row = stat(pid)
            total += row.rss if row else 0
    return total


def cpu_seconds(rows: Iterable[Stat]) -> float:
    return sum(row.ticks for row in rows) / TICKS


def reap(before: Collection[Identity]) -> set[Identity]:
    """Wait for children of ours that are dead and were so in `before`; returns who is dead now.

    Whoever started a child waits for it at once; one that is dead in two looks is an orphan that came to us.
    """
    me = os.getpid()
    dead = {Identity(pid, row.start, boot_id()) for pid, row in table().items() if row.ppid == me and row.state == "Z"}
    for orphan in dead & set(before):
        try:
            os.waitpid(orphan.pid, os.WNOHANG)
        except ChildProcessError:
            continue
    return dead


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Get SIGTERM when the parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory, environment and descriptors."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
