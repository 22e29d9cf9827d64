"""The limits of a session: time, memory, disk, progress. Passing one ends the session with its reason."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

from parhelia_mcp import model, processes
from parhelia_mcp.inside.agent import Room
from parhelia_mcp.model import Reason, State

GIB = 1 << 30
NO_SPACE = 4 << 20  # bytes free below which a disk is full for whoever writes in blocks
LOW_SPACE = 256 << 20
IDLE_CPU = 0.01  # of one core


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the runner ends its agent, and how long the agent has to end by itself."""

    state: State
    reason: Reason
    detail: str
    grace_s: float = 10.0


Stop = Callable[[Ending], None]


async def watch(room: Room, stop: Stop) -> None:
    """Watch every limit until cancelled; `stop` is called when one is passed."""
    async with anyio.create_task_group() as group:
        group.start_soon(_time, room, stop)
        group.start_soon(_memory, room, stop)
        group.start_soon(_disk, room)
        if room.spec.agent.kind == "claude":
            group.start_soon(_progress, room, stop)


async def _time(room: Room, stop: Stop) -> None:
    limits = room.spec.limits
    if limits.deadline is None:
        return
    while (left := (model.moment(limits.deadline) - model.now()).total_seconds()) > 0:
        await anyio.sleep(min(left, 5.0))  # in steps: the clock of a machine that slept has moved
    if limits.left_s:
        detail = f"the sandbox is at the end of its life; the task goes on for {limits.left_s / 3600:.2g} h in the next"
        stop(Ending(State.FAILED, Reason.LIFETIME, detail))
        return
    stop(Ending(State.FAILED, Reason.TIMEOUT, f"the session reached its deadline, {limits.deadline}"))


async def _memory(room: Room, stop: Stop) -> None:
    if room.spec.limits.memory_gb is None:
        return
    limit = room.spec.limits.memory_gb * GIB
    while True:
        rows = processes.members(room.spec.session, {os.getpid()}, room.spared)
        used = sum(row.rss for row in rows.values())
        room.counters["memory_peak_bytes"] = max(room.counters.get("memory_peak_bytes", 0), used)
        if used > limit:  # RSS counts shared pages once a process: ask exactly before anybody is ended
            used = await anyio.to_thread.run_sync(processes.shared_memory, list(rows))
            if used > limit:
                detail = f"oom: the session used {used / GIB:.2f} GiB of the {limit / GIB:.2f} GiB it may use"
                stop(Ending(State.FAILED, Reason.OUT_OF_MEMORY, detail, grace_s=0.0))
                return
        await anyio.sleep(0.1 if used > limit * 0.6 else 0.3)


async def _disk(room: Room) -> None:
    warned = False
    while not warned:
        free = free_space(room.workspace)
        if warned := free < LOW_SPACE:
            room.emit("warning", f"the disk of the workspace is nearly full: {free >> 20} MiB left", free_bytes=free)
        await anyio.sleep(5)


async def _progress(room: Room, stop: Stop) -> None:
    limits = room.spec.limits
    cpu, looked = _cpu(room), time.monotonic()
    while True:
        await anyio.sleep(min(15.0, limits.no_progress_minutes * 60 / 4))
        used, at = _cpu(room), time.monotonic()
        if abs(used - cpu) > IDLE_CPU * (at - looked) and room.state != "waiting":
            room.active_at = at
        cpu, looked = used, at
        quiet = at - room.active_at
        if room.state == "waiting":
            if quiet > limits.waiting_hours * 3600:
                detail = f"nobody answered for {limits.waiting_hours:g} hours: {room.waiting}"
                stop(Ending(State.FAILED, Reason.NO_PROGRESS, detail))
                return
        elif quiet > limits.no_progress_minutes * 60 and room.in_flight() == 0:
            detail = f"no event, no output, no request and no CPU for {quiet / 60:.0f} minutes"
            stop(Ending(State.FAILED, Reason.NO_PROGRESS, detail))
            return


def _cpu(room: Room) -> float:
    """CPU seconds of what the agent runs. Its own are left out: an idle client uses more than work that matters."""
    rows = processes.members(room.spec.session, {os.getpid()}, room.spared)
    return processes.cpu_seconds(row for pid, row in rows.items() if pid != room.agent.get("pid"))


def free_space(path: Path) -> int:
    """Bytes that may still be written where `path` lies."""
    there = os.statvfs(path)
    return 0 if there.f_files and not there.f_favail else there.f_bavail * there.f_frsize


def disk_full(problem: OSError | None, path: Path) -> str:
    """What shows that the disk is full, or nothing."""
    if problem is not None and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"disk full: {problem.strerror} while writing the session's record"
    free = free_space(path)
    return f"disk full: {free >> 10} KiB left on the disk of the workspace" if free < NO_SPACE else ""
