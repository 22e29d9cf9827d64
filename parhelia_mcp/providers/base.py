"""The contract between Parhelia and a place that runs sandboxes.

A provider starts, opens and lists sandboxes; a sandbox is polled, read, written and ended. Methods are synchronous
and every one takes a deadline in seconds: it returns or raises by then, whatever the network does. What a vendor's
library raises is translated in the vendor's file; only `parhelia_mcp.errors` come out. Differences between
providers are data (`Properties`), never a type check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from parhelia_mcp.model import Sizes

DEADLINE = 10.0  # seconds; what a call gets when the caller has no better number


@dataclass(frozen=True, slots=True)
class Properties:
    """What differs between providers, as data."""

    name: str
    local_disk: bool  # the session's files are the files under PARHELIA_HOME: nothing has to be copied
    gpus: tuple[str, ...]  # names that `--gpu` may ask for; empty: none
    regions: bool  # whether `region` means anything
    max_lifetime_hours: float | None  # longest life of one sandbox
    own_uid: bool  # the agent has a uid of its own
    bills: bool  # has prices of its own and says what a sandbox cost


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to start. `name` is the session id: starting the same name again adopts what runs, it never doubles."""

    name: str
    sizes: Sizes
    timeout_s: float  # the sandbox ends by itself then: what was reserved is all that can be spent
    tags: Mapping[str, str]  # owner, project, task, session; how `list` finds what a database never heard of
    region: str | None = None
    secrets: tuple[str, ...] = ()  # names of secrets the provider keeps
    image: str | None = None  # a snapshot to start from instead of the usual files
    credential: Mapping[str, str] = field(default_factory=dict, repr=False)  # for the runner alone, never stored


@dataclass(frozen=True, slots=True)
class Handle:
    """How to find a sandbox again, from any process. `data` is JSON, made and read by its provider alone."""

    provider: str
    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a sandbox. `code` is None where nobody saw it; `cause` is the vendor's word, if any."""

    code: int | None
    cause: str = ""  # "timeout" | "terminated" | "out-of-memory" | "vanished" | ""


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished exec."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """One running sandbox as the provider lists it."""

    handle: Handle
    tags: Mapping[str, str]
    created_at: str | None


@dataclass(frozen=True, slots=True)
class Rates:
    """What a provider says that it charges this account now, in dollars an hour; what it left out is None or absent."""

    source: str
    cpu_core: float | None
    memory_gb: float | None
    gpu: Mapping[str, float]


def ignore(_: int) -> None:
    """For who does not look."""


class Sandbox(Protocol):
    """One sandbox, alive or dead. Every path is relative to the task's directory and may not leave it."""

    task_dir: PurePosixPath  # where `tasks/TASK/` lies inside the sandbox
    workspace: PurePosixPath  # where the agent works inside the sandbox

    def poll(self, *, deadline: float = DEADLINE) -> Exit | None:
        """None while it runs. May be asked again after the end; gives the same answer."""
        ...

    def exec(self, argv: tuple[str, ...], *, stdin: bytes = b"", deadline: float = DEADLINE) -> Completed:
        """Run a program in the sandbox as the runner's user and wait for it. Raises Unreachable when it is dead."""
        ...

    def put(
        self, path: str, source: bytes | Path, *, deadline: float = DEADLINE, seen: Callable[[int], None] = ignore
    ) -> None:
        """Make `path` hold the bytes, by rename: whole or not at all. Parents are made.

        `seen` gets how many bytes have gone so far, from any thread.
        """
        ...

    def get(self, path: str, target: Path, *, deadline: float = DEADLINE) -> None:
        """Copy the file `path` to `target`, by rename. Works on a dead sandbox. Raises NotFound."""
        ...

    def read(self, path: str, offset: int = 0, limit: int = 1 << 20, *, deadline: float = DEADLINE) -> bytes:
        """Up to `limit` bytes from `offset`; empty at the end or where there is no such file.

        Works on a dead sandbox, whose view may lag: shorter than before is not truncated.
        """
        ...

    def names(self, path: str, *, deadline: float = DEADLINE) -> list[str]:
        """The names in directory `path`, sorted; empty where there is none. Works on a dead sandbox."""
        ...

    def remove(self, path: str, *, deadline: float = DEADLINE) -> None:
        """See that the dead sandbox's file `path` is gone. Raises Busy `session-lives` while it runs, Unreachable."""
        ...

    def control(self, request: Mapping[str, Any], *, deadline: float = DEADLINE) -> Mapping[str, Any]:
        """One request on the runner's control socket and its answer. Raises Unreachable when nobody answers."""
        ...

    def tunnel(self, port: int, *, deadline: float = DEADLINE) -> tuple[str, int]:
        """Host and port by which this machine reaches TCP `port` of the sandbox. Raises Unreachable."""
        ...

    def snapshot(self, ttl_s: int, *, deadline: float = DEADLINE) -> str | None:
        """Keep all its files for so long; returns what `SandboxSpec.image` takes, None where there is no such thing.

        Raises Unreachable where it was not taken.
        """
        ...

    def terminate(self, *, deadline: float = DEADLINE) -> Exit:
        """End every process of the sandbox and prove it. Idempotent. Raises Unreachable when the end was not seen."""
        ...

    def cost(self, *, deadline: float = DEADLINE) -> float | None:
        """The dollars that the provider itself says it cost so far; None where it says nothing. May lag by minutes."""
        ...


class Provider(Protocol):
    properties: Properties

    def start(self, spec: SandboxSpec, *, deadline: float = DEADLINE) -> Handle:
        """Start the sandbox named `spec.name`, whose entrypoint is our runner, or adopt the one that has the name.

        The runner waits for `spec.json` of its session before it does anything. Raises Refused for what can never
        work (size, region, secret, token), NotFound `snapshot-gone` where it has `spec.image` no more, Unreachable for
        what may work later.
        """
        ...

    def open(self, handle: Handle) -> Sandbox:
        """The sandbox behind a handle. Asks nobody."""
        ...

    def list(self, owner: str, *, deadline: float = DEADLINE) -> list[Listed]:
        """Every running sandbox that carries our owner tag. Absence from it proves nothing; a failure raises."""
        ...

    def withdraw(self, name: str, *, deadline: float = DEADLINE) -> str | None:
        """See that no sandbox of that name runs, also one whose start is under way or whose answer was lost.

        Returns since when (ISO 8601) one ran that has to be paid for. Raises Unreachable where that could not be seen.
        """
        ...

    def discard(self, image: str, *, deadline: float = DEADLINE) -> None:
        """See that the snapshot is gone. Raises Unreachable."""
        ...

    def rates(self, *, deadline: float = DEADLINE) -> Rates | None:
        """The provider's own prices for this account; None where it has none to offer."""
        ...
