"""The line at the bottom of the terminal: the task, its state, what it has spent of what, the time it has left."""

from __future__ import annotations

import anyio

from parhelia_mcp import model
from parhelia_mcp.inside.agent import Room
from parhelia_mcp.inside.terminal import Terminal


async def show(terminal: Terminal, room: Room, before: str) -> str:
    """Put the line into tmux where it differs from `before`; returns it."""
    now = text(room)
    if now != before:
        await anyio.to_thread.run_sync(terminal.status, now)
    return now


def text(room: Room) -> str:
    """`task-0a1b2c3d.1 | running | $0.12 of $5.00 | 3 h 59 min left`, as far as there is something to say."""
    limits = room.spec.limits
    spent = room.counters.get("usd")
    parts = [room.spec.session, room.state]
    if spent is not None and limits.max_usd is not None:
        parts.append(f"${spent:.2f} of ${limits.max_usd:.2f}")
    if limits.deadline:
        parts.append(f"{left((model.moment(limits.deadline) - model.now()).total_seconds())} left")
    return " | ".join(filter(None, (*parts, room.hint)))


def left(seconds: float) -> str:
    """A time for people, in whole minutes."""
    hours, minutes = divmod(max(0, int(seconds)) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
