"""The runner: one session from its entrypoint to its result. It supervises; what works is the agent."""

from __future__ import annotations

import argparse
import functools
import os
import platform
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from parhelia_mcp import files, locks, model, processes, spec
from parhelia_mcp.errors import Problem
from parhelia_mcp.failpoint import reach
from parhelia_mcp.inside import (
    checkpoints,
    configuration,
    control,
    environment,
    limits,
    outcome,
    owner,
    ssh,
    status_line,
)
from parhelia_mcp.inside.__main__ import REFUSED
from parhelia_mcp.inside.agent import Agent, End, Room
from parhelia_mcp.inside.journal import Journal
from parhelia_mcp.inside.limits import Ending
from parhelia_mcp.inside.requests import Requests
from parhelia_mcp.inside.terminal import SESSION, Terminal
from parhelia_mcp.model import Reason, State

BEAT_S = 2.0
BALLAST = 512 << 10
SPEC_S = 120.0  # for the spec to be delivered


def main(options: argparse.Namespace, session_dir: Path) -> int:
    """Live one session; returns the exit code of the process, which says nothing about the agent."""
    lock = locks.try_acquire(session_dir / "runner.lock")
    if lock is None or (session_dir / "result.json").exists():
        sys.stderr.write(f"{session_dir}: this session has a runner, or has ended\n")
        return REFUSED
    reach("runner.begin")
    runner = Runner(options.task_dir.resolve(), options.number, session_dir, options.workspace, options.guard)
    runner.ssh_port = options.ssh_port
    runner.owner = owner.find(options.user)
    runner.home = options.home or runner.home
    runner.write_state()
    processes.adopt_orphans()
    processes.end_with_parent()
    runner.credential = environment.credential(options)
    runner.inherited = environment.inherited(options.pass_env)
    processes.hide_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        anyio.run(runner.live)
    finally:
        shutil.rmtree(runner.runtime, ignore_errors=True)
    return 0


def _private_runtime() -> Path:
    """A new directory with a short path: a socket's may have 107 bytes."""
    path = Path(f"/tmp/parhelia-{os.urandom(5).hex()}")
    path.mkdir(mode=0o700)
    return path


class Runner:
    def __init__(
        self, task_dir: Path, number: int, session_dir: Path, workspace: Path | None, guard: processes.Identity
    ) -> None:
        self.guard = guard
        self.owner: owner.Owner | None = None
        self.task_dir, self.session_dir = task_dir, session_dir
        self.session = model.session_id(task_dir.name, number)
        self.workspace = workspace or task_dir / "workspace"
        self.home = task_dir / "home"
        self.runtime = _private_runtime()
        self.credential: Mapping[str, str] = {}
        self.inherited: Mapping[str, str] = {}  # of our environment, by the agent
        self.phase = "starting"
        self.journal = Journal(session_dir / "events.jsonl")
        self.terminal = Terminal(self.runtime / "view")
        self.listening = False
        self.room: Room | None = None
        self.agent: Agent | None = None
        self.ending: Ending | None = None
        self.grace: anyio.CancelScope | None = None  # while the agent has been asked to end
        self.tmux: dict[str, str] = {}
        self.ssh: Mapping[str, Any] = {}
        self.ssh_port = 0
        self.started_at = time.monotonic()
        self.wake = anyio.Event()  # the agent has ended, or is to be ended
        self.ballast = session_dir / ".ballast"  # space for the result, given back when the disk is full
        files.replace(self.ballast, bytes(BALLAST))

    # What others can see of it.

    def state(self) -> dict[str, Any]:
        """What state.json holds."""
        room = self.room
        return {
            "v": 1,
            "session": self.session,
            "phase": room.state if room and self.phase == "running" else self.phase,
            "heartbeat_at": model.timestamp(),
            "runner": processes.identity(os.getpid())._asdict(),
            "guard": self.guard._asdict(),
            "runtime": str(self.runtime),
            "control": str(self.runtime / "control") if self.listening else "",
            "agent_control": str(self.runtime / "agent") if self.listening else "",
            "tmux": self.tmux,
            "ssh": self.ssh,
            "workspace": str(self.workspace),
            "agent": room.agent if room else {},
            "waiting": room.waiting if room else "",
            "counters": room.counters if room else {},
            "seq": self.journal.seq,
        }

    def write_state(self) -> None:
        try:
            files.replace_json(self.session_dir / "state.json", self.state())
        except OSError as problem:
            self.failed(problem)

    def emit(self, kind: str, text: str, **fields: Any) -> None:
        """Record an event; a disk that is full ends the session instead of raising."""
        if self.room is not None:
            self.room.emit(kind, text, **fields)
            return
        self.terminal.log(text)
        try:
            self.journal.append(kind, text, **fields, out=[0, 0])
        except OSError as problem:
            self.failed(problem)

    def failed(self, problem: OSError) -> None:
        self.ballast.unlink(missing_ok=True)
        detail = limits.disk_full(problem, self.session_dir) or f"the session's record could not be written: {problem}"
        self.stop(Ending(State.FAILED, Reason.DISK_FULL, detail, grace_s=2.0))

    def stop(self, ending: Ending) -> None:
        """End the session for a reason; the first one counts, a later one can only shorten the agent's time."""
        if self.ending is None:
            self.ending = ending
            self.wake.set()
            if ending.state is State.FAILED:
                self.emit("limit", f"error: {ending.detail}", reason=ending.reason)
        if self.grace is not None:
            self.grace.deadline = min(self.grace.deadline, anyio.current_time() + ending.grace_s)

    # Its life.

    async def live(self) -> None:
        """Start, run the agent, write the result. Returns when result.json is there."""
        self.emit(
            "entrypoint",
            f"entrypoint: session {self.session}, runner {os.getpid()} on {platform.node()}",
            **processes.identity(os.getpid())._asdict(),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(self._signals)
            group.start_soon(self._beat)
            requests = Requests(self)
            group.start_soon(control.serve, await control.listen(self.runtime / "control"), requests.ops)
            group.start_soon(control.serve, await control.listen(self.runtime / "agent"), requests.agent_ops)
            self.listening = True
            self.write_state()
            end = await self._work()
            await self._finish(end)
            group.cancel_scope.cancel()

    async def _work(self) -> End | None:
        try:
            told = await self._spec()
            if told is None:
                return None
            self.room = self._make_room(told)
            self.checkpoints = checkpoints.Checkpoints(self.room, self.task_dir / "checkpoints", self.terminal.screen)
            await self._prepare(self.room)
            return await self._run(self.room) if self.ending is None else None
        except Problem as problem:
            return End(False, None, Reason.START_FAILED, str(problem))
        except Exception as problem:  # noqa: BLE001 -- the outermost: whatever failed, the work must land
            sys.stderr.write(traceback.format_exc())
            return End(False, None, Reason.AGENT_ERROR, f"the runner failed: {type(problem).__name__}: {problem}")

    async def _spec(self) -> spec.Spec | None:
        """The spec of this session when it is delivered; None when the session was ended before, or it never came."""
        while self.ending is None:
            told = spec.Spec.read(self.task_dir / "spec.json")
            if told is not None and told.session == self.session:
                return told
            waited = time.monotonic() - self.started_at
            if waited > SPEC_S:
                self.stop(Ending(State.FAILED, Reason.START_TIMEOUT, f"no spec was delivered in {SPEC_S:.0f} s"))
            await anyio.sleep(0.005 if waited < 3 else 0.1)
        return None

    def _make_room(self, told: spec.Spec) -> Room:
        files.private_dir(self.home)
        user = {"USER": self.owner.name, "LOGNAME": self.owner.name} if self.owner else {}
        return Room(
            spec=told,
            workspace=self.workspace,
            home=self.home,
            session_dir=self.session_dir,
            runtime=self.runtime,
            env={"PATH": os.defpath, **self.inherited, **user, "HOME": str(self.home), processes.MARKER: self.session},
            owner=self.owner,
            credential=self.credential,
            journal=self.journal,
            show=self.terminal.show,
            log=self.terminal.log,
            changed=self.write_state,
            spared=frozenset({os.getpid(), self.guard.pid}),
            failed=self.failed,
            terminal=self.terminal,
        )

    async def _prepare(self, room: Room) -> None:
        told = room.spec
        self.emit("config", f"config: {outcome.configuration(told)}", agent=told.agent.kind, sizes=told.sizes)
        hooks = configuration.hooks(told.agent)
        self.emit("hook", f"hook: in-session hooks: {', '.join(hooks) or 'none'}", hooks=hooks)
        await configuration.lay(room)
        await anyio.to_thread.run_sync(self._unpack, room)
        if self.owner is not None:
            await anyio.to_thread.run_sync(self.owner.give, self.workspace)
            self.owner.give(self.runtime / "agent")
        base = f" at {told.workspace.base_commit[:12]}" if told.workspace.base_commit else ""
        ground = f"; {told.workspace.ground}" if told.workspace.ground else ""
        self.emit(
            "workspace", f"workspace: {told.workspace.kind}{base} in {self.workspace}{ground}", path=str(self.workspace)
        )
        await configuration.check(room)

    def _unpack(self, room: Room) -> None:
        """Lay out the workspace; one that an earlier session left is kept beside it."""
        told = room.spec
        if self.workspace.is_dir() and any(self.workspace.iterdir()):
            self._make_way(told.number)
        if told.workspace.checkpoint is not None:
            from parhelia_mcp.checkpoint import session
            from parhelia_mcp.checkpoint.store import Store, load

            store = Store(self.task_dir / "checkpoints", checkpoints.key(room.credential))
            aside = self.task_dir / f"conversation.{told.number - 1}"
            wanted = load(store, told.workspace.checkpoint)
            session.restore(store, wanted, self.workspace, room.home, outcome.slug(self.workspace), aside)
            return
        from parhelia_mcp import workspace

        workspace.unpack(told.workspace, self.session_dir, self.workspace)

    def _make_way(self, number: int) -> None:
        """Keep what an earlier session left on this disk beside the workspace; what an image brought is in its snapshot."""
        if self.workspace.parent == self.task_dir:
            self.workspace.rename(self.workspace.with_name(f"{self.workspace.name}.{number - 1}"))
            return
        for left in self.workspace.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()

    async def _run(self, room: Room) -> End:
        """Run the agent until it ends or is ended, and every process with it."""
        if room.spec.agent.kind == "claude":
            from parhelia_mcp.inside import claude as kind
        else:
            from parhelia_mcp.inside import command as kind
        agent = self.agent = kind.make(room)
        self.phase = "running"
        ends: list[End] = []

        async def work() -> None:
            ends.append(await agent.run())
            self.wake.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(limits.watch, room, self.stop)
            group.start_soon(self.checkpoints.every)
            group.start_soon(self._open_terminal, room)
            group.start_soon(ssh.keep, room, self.ssh_port, self._ssh_listens)
            await self.wake.wait()
            if not ends:
                await self._end_agent(agent, room, ends)
            group.cancel_scope.cancel()
        return ends[0] if ends else End(False, None, None, "the agent did not say how it ended")

    async def _end_agent(self, agent: Agent, room: Room, ends: list[End]) -> None:
        """Ask the agent to end, and end it when it does not."""
        assert self.ending is not None
        self.wake = anyio.Event()
        if not ends and self.ending.grace_s > 0:
            with anyio.move_on_after(self.ending.grace_s) as self.grace:
                await agent.interrupt()
                await self.wake.wait()
                return
            self.emit("warning", "the agent did not end when it was asked to: it is killed")
        await anyio.to_thread.run_sync(room.end_left)
        with anyio.move_on_after(5):
            await self.wake.wait()

    async def _open_terminal(self, room: Room) -> None:
        keys = room.spec.agent.kind == "claude" and not room.spec.agent.interactive
        start = functools.partial(self.terminal.start, room.env, room.workspace, self.owner, keys=keys)
        await anyio.to_thread.run_sync(start)
        self.terminal.opened.set()
        if self.terminal.trouble:
            self.emit("warning", f"warning: {self.terminal.trouble}")
            return
        self.tmux = {"socket": str(self.terminal.socket), "session": SESSION}
        self.write_state()
        await status_line.show(self.terminal, room, "")

    def _ssh_listens(self, where: Mapping[str, Any]) -> None:
        self.ssh = where
        self.write_state()

    async def _finish(self, end: End | None) -> None:
        """End every process, put the work into result.bundle, and say how it went, in this order."""
        self.phase = "ending"
        self.write_state()
        room = self.room
        if room:
            await anyio.to_thread.run_sync(self.checkpoints.see)
        left = await anyio.to_thread.run_sync(room.end_left) if room else ()
        if left:
            self.emit("warning", f"{len(left)} processes are still there after SIGKILL", pids=sorted(left))
        if end is not None and self.agent is not None:
            self.emit("agent-exited", f"agent exited: {end.detail}", exit_code=end.exit_code)
        full = limits.disk_full(None, self.task_dir)
        result = outcome.judge(end, self.ending, full)
        collected: dict[str, Any] = {"commit": None, "files_changed": 0}
        if room is not None and self.agent is not None:
            collected = await anyio.to_thread.run_sync(self._collect, room.spec)
            if result["reason"] != Reason.DISK_FULL:
                await self.checkpoints.attempt(checkpoints.FINAL[result["state"]])
        self.ballast.unlink(missing_ok=True)
        self.emit("result", outcome.last_line(result, collected), **result)
        document = {"v": 1, "session": self.session, **result, "text": end.text if end else ""}
        counters = room.counters if room else {}
        document |= {"ended_at": model.timestamp(), **collected, "counters": counters}
        files.replace_json(self.session_dir / "result.json", document, durable=True)
        self.phase = result["state"]
        self.write_state()

    def _collect(self, told: spec.Spec) -> dict[str, Any]:
        """Put the work into result.bundle; a failure to do so is recorded and hides nothing else."""
        from parhelia_mcp import workspace

        try:
            found = workspace.collect(
                self.workspace,
                told.workspace,
                self.session_dir / "result.bundle",
                session=self.session,
                message=outcome.message(told),
            )
        except (Problem, OSError) as problem:
            for draft in self.session_dir.glob(".result.bundle.*"):
                draft.unlink()  # on a full disk the result needs the space
            self.emit("warning", f"error: the work could not be collected: {problem}; it is in {self.workspace}")
            return {"commit": None, "files_changed": 0}
        return (
            {"commit": found.commit, "files_changed": found.files_changed}
            if found
            else {"commit": None, "files_changed": 0}
        )

    # What runs beside the agent.

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as arrivals:
            async for number in arrivals:
                if number != signal.SIGHUP:
                    name = signal.Signals(number).name
                    detail = f"the session was terminated by {name}"
                    self.stop(Ending(State.KILLED, Reason.KILLED_BY_USER, detail))

    async def _beat(self) -> None:
        orphans: set[processes.Identity] = set()
        shown = ""
        while True:
            await anyio.sleep(BEAT_S)
            self.write_state()
            if self.tmux and self.room:
                shown = await status_line.show(self.terminal, self.room, shown)
            orphans = processes.reap(orphans)
