"""The words of Parhelia as data: ids, states, reasons, times, money. Nothing here does I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from parhelia_mcp.errors import Usage

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
TASK_ID = re.compile(r"task-[0-9a-z]{8}")
SESSION_ID = re.compile(r"(task-[0-9a-z]{8})\.([1-9][0-9]{0,5})")
CHECKPOINT_ID = re.compile(r"cp-[0-9a-f]{8}")
MICRO = 1_000_000  # money is whole micro-dollars inside, dollars with at most 6 places outside


class State(StrEnum):
    """Where a session is in its one life. The first four live; "stuck" is a diagnosis, never a state."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    LOST = "lost"

    @property
    def live(self) -> bool:
        return self in LIVE


LIVE = frozenset({State.PENDING, State.STARTING, State.RUNNING, State.WAITING})


class Reason(StrEnum):
    """Why a session ended."""

    AGENT_EXIT = "agent-exit"
    AGENT_ERROR = "agent-error"
    OVER_BUDGET = "over-budget"
    TIMEOUT = "timeout"
    NO_PROGRESS = "no-progress"
    OUT_OF_MEMORY = "out-of-memory"
    DISK_FULL = "disk-full"
    LIFETIME = "lifetime"
    START_FAILED = "start-failed"
    START_TIMEOUT = "start-timeout"
    CRASH_LOOP = "crash-loop"
    KILLED_BY_USER = "killed-by-user"
    PROVIDER_LOST = "provider-lost"


class Sizes(NamedTuple):
    """What a session may use: cores, GiB, and a GPU's name or None."""

    cpu: float
    memory_gb: float
    gpu: str | None = None


class Doing(NamedTuple):
    """How far something long has come; `total` is 0 where nobody knows it, `files` where none are counted."""

    what: str
    files: int = 0
    done: int = 0  # bytes
    total: int = 0


Tell = Callable[[Doing | None], None]  # None: nothing any more


def new_task_id() -> str:
    return "task-" + "".join(ALPHABET[byte % 36] for byte in os.urandom(8))


def session_id(task: str, number: int) -> str:
    return f"{task}.{number}"


def split_session(session: str) -> tuple[str, int]:
    """The task and the number of a session id; raises Usage `bad-id`."""
    match = SESSION_ID.fullmatch(session)
    if not match:
        raise Usage("bad-id", f"{session[:80]!r} is not a session id.", "parhelia session list")
    return match[1], int(match[2])


def now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime | None = None) -> str:
    """ISO 8601 in UTC with milliseconds, the form of every time Parhelia writes."""
    return (moment or now()).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """The time that `timestamp` wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def dollars(micro: int) -> float:
    """Micro-dollars as the number that JSON shows."""
    return round(micro / MICRO, 6)


def micro(dollars_: float) -> int:
    """Dollars as whole micro-dollars, rounded to the nearest."""
    return round(dollars_ * MICRO)
