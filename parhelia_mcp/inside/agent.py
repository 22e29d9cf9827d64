"""The seam between the runner and what it runs: an agent gets a room, works in it, and says how it ended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.abc

from parhelia_mcp import files, processes
from parhelia_mcp.inside.confine import confined
from parhelia_mcp.inside.journal import Journal
from parhelia_mcp.inside.owner import Owner
from parhelia_mcp.model import Reason
from parhelia_mcp.spec import Spec

if TYPE_CHECKING:
    from parhelia_mcp.inside.stream import Entry
    from parhelia_mcp.inside.terminal import Terminal


@dataclass(frozen=True, slots=True)
class End:
    """How an agent ended. `reason` is None where nothing went wrong; `text` is its last word, for people."""

    ok: bool
    exit_code: int | None
    reason: Reason | None
    detail: str
    text: str = ""


@dataclass(slots=True)
class Room:
    """What an agent is given. It writes to the journal, the logs and the view through here and nowhere else."""

    spec: Spec
    workspace: Path  # where the agent works
    home: Path  # the agent's HOME, its own
    session_dir: Path  # sessions/N: the journal, the logs; what an agent keeps for the runner's user only
    runtime: Path  # a short private directory for sockets
    env: Mapping[str, str]  # allow-listed, with PATH, HOME and the marker; pass it on, add to a copy
    credential: Mapping[str, str]  # as it came over the descriptor; empty: none. Never give it to the agent
    journal: Journal
    show: Callable[[str], None]  # the live view in tmux
    log: Callable[[str], None]  # the window `log` in tmux; every event comes there by itself
    changed: Callable[[], None]  # state.json is to be written again
    spared: frozenset[int]  # the runner's own processes, which are not the agent's
    failed: Callable[[OSError], None]  # a log could not be written: the disk is full
    terminal: Terminal | None = None  # where a full-screen client runs
    owner: Owner | None = None  # whom `spawn` starts programs as; None: our own user
    counters: dict[str, float] = field(default_factory=dict)  # turns, tokens, usd: in state.json and result.json
    agent: dict[str, Any] = field(default_factory=dict)  # pid, session_id, ...: `agent` of state.json
    state: str = "starting"
    waiting: str = ""  # what it waits for
    hint: str = ""  # what a person at the terminal can do, for its status line
    in_flight: Callable[[], int] = lambda: 0  # requests under way; set it, or a slow answer counts as no progress
    resting: Callable[[], bool] = lambda: False  # nothing of its work is half done: it is between turns; set it
    pending: Callable[[], str | None] = lambda: None  # the tool that is at work; set it where there are tools
    hold: Callable[[int], None] | None = None  # takes micro-dollars from what it may spend, or back; raises Refused
    heard: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]] | None = (
        None  # takes a full-screen client's events
    )
    active_at: float = field(default_factory=time.monotonic)
    log_bytes: dict[str, int] = field(default_factory=lambda: {"stdout.log": 0, "stderr.log": 0})
    _logs: dict[str, int] = field(default_factory=dict)
    _given: bool = False  # the home has been given to its owner, with what was written there for the agent

    def emit(self, kind: str, text: str, **fields: Any) -> int:
        """Record an event (the kinds of the journal's contract) and return its number. It counts as progress.

        `out` is how long both logs were then: it places the output between the events when logs are merged.
        """
        self.active_at = time.monotonic()
        self.log(text)
        lengths = [self.log_bytes["stdout.log"], self.log_bytes["stderr.log"]]
        try:
            return self.journal.append(kind, text, **fields, out=lengths)
        except OSError as problem:
            self.failed(problem)
            return self.journal.seq

    def stdout(self, data: bytes) -> None:
        """Append the bytes, as they are, to the session's stdout.log."""
        self._log("stdout.log", data)

    def stderr(self, data: bytes) -> None:
        """Append the bytes, as they are, to the session's stderr.log."""
        self._log("stderr.log", data)

    def _log(self, name: str, data: bytes) -> None:
        self.active_at = time.monotonic()
        if name not in self._logs:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._logs[name] = os.open(self.session_dir / name, flags, 0o600)
        try:
            files.write_all(self._logs[name], data)
            self.log_bytes[name] += len(data)
        except OSError as problem:
            self.failed(problem)

    def record(self, entry: Entry) -> None:
        """Put what happened in a conversation into the journal and the view; what the agent says also into the log."""
        self.emit(entry.kind, entry.text, **entry.fields)
        if entry.shown:
            self.view(entry.shown + "\n")
        if entry.kind == "message":
            self.stdout(entry.shown.encode(errors="replace") + b"\n")

    def view(self, text: str) -> None:
        """Show `text` to whoever watches; escapes are taken out."""
        self.show(text)

    def phase(self, state: str, why: str = "", **fields: Any) -> None:
        """Say that the agent is `running` or `waiting`, and for what; a `waiting` event goes to the journal."""
        if state == "waiting" and (self.state, self.waiting) != (state, why):
            self.emit("waiting", f"waiting: {why}", why=why, **fields)
        self.state, self.waiting = state, why if state == "waiting" else ""
        self.active_at = time.monotonic()
        self.changed()

    def left(self) -> Mapping[int, processes.Stat]:
        """The session's living processes but the runner's own: all that `spawn` led to, and the terminal."""
        return processes.members(self.spec.session, {os.getpid()}, self.spared)

    def end_left(self) -> Collection[int]:
        """End them; returns those that are still there."""
        return processes.end(self.left, spare=self.spared)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> anyio.abc.Process:
        """Start a program of the session in a session of its own, marked, in the workspace.

        It runs as the owner. Raises FileNotFoundError or PermissionError as exec does.
        """
        if self.owner is not None and not self._given:
            self.owner.give(self.home)
            self._given = True
        given = {**(self.env if env is None else env), processes.MARKER: self.spec.session}
        if self.spec.agent.isolate == "bwrap":
            mine = (self.workspace, self.home, self.runtime / "agent")
            argv = confined(argv, given, hidden=self.session_dir.parents[3], writable=mine)
        return await anyio.open_process(
            list(argv),
            env=given,
            cwd=cwd or self.workspace,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            **(self.owner.as_arguments() if self.owner else {}),
        )


class Agent(Protocol):
    """What the runner runs. One is made for each session by its module's `make(room)`.

    It records `agent-started` and what happens in its work; the runner records `message-sent`, `message-delivered`,
    `agent-exited`, `checkpoint`, `limit` and `result`, and ends every process that is left after `run`.
    """

    async def run(self) -> End:
        """Work until it is done. Cancelled by the runner only after `interrupt` was not heard."""
        ...

    async def send(self, text: str, id: str) -> None:
        """Give it a message; returns when it has been acknowledged. Raises Problem when it cannot be delivered."""
        ...

    async def answer(self, allow: bool, text: str | None) -> None:
        """Answer what it waits for. Raises Problem when it waits for nothing."""
        ...

    async def take_over(self, now: bool) -> None:
        """Let a person at the terminal go on in its place. Raises Problem where that cannot be."""
        ...

    async def interrupt(self) -> None:
        """Ask it to end at the next safe point; returns when asked, `run` returns when it has ended."""
        ...
