"""Sandboxes as real processes.

`Plain`, here, works everywhere: a directory, a process tree, and arguments that begin with a mounted path are
rewritten to where it really lies. `isolated.py` has the better kind, for root on Linux.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from parhelia_mcp import processes

INTERPRETER = "/opt/parhelia/bin/python"  # what stands there in the image that Parhelia builds
ENTRY = "entry"  # the name of an entrypoint's output
MARK = "MODAL_SANDBOX_ID"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PDEATHSIG = 1


@dataclass(frozen=True)
class Plan:
    """What a box is made of."""

    id: str
    folder: Path
    argv: tuple[str, ...]
    env: Mapping[str, str]
    workdir: str
    mounts: Mapping[str, Path]  # path inside -> directory outside
    egress: tuple[int, ...] = ()  # ports of this machine that it may reach
    image: Path | None = None  # the files of a snapshot that it starts from


class Orphan:
    """A program whose server was killed: the keeper writes how it ended."""

    def __init__(self, pid: int, exits: Path) -> None:
        self.pid, self._end = pid, exits / str(pid)

    @property
    def returncode(self) -> int | None:
        gone = not Path(f"/proc/{self.pid}").exists()  # looked at first: the end is written before
        if self._end.exists():
            return int(self._end.read_text())
        return -signal.SIGKILL if gone else None

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await asyncio.sleep(0.02)
        return code


@dataclass
class Process:
    """An entrypoint or an exec: its output lies in files, read by offset as often as wanted."""

    process: asyncio.subprocess.Process | Orphan
    stdout: Path
    stderr: Path
    written: int = 0
    input_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def kill(self) -> None:
        """End it and what it started in its process group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Box(Protocol):
    plan: Plan
    entry: Process
    own: Path  # the files that are its own: what a snapshot keeps

    async def run(self, argv: list[str], env: Mapping[str, str], workdir: str, name: str) -> Process: ...
    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...
    def kept(self) -> dict[str, Any]: ...
    def kill(self) -> None: ...


def adopted(plan: Plan, pid: int) -> Process:
    """The entrypoint of a box that another server started."""
    out = plan.folder / ENTRY
    return Process(Orphan(pid, plan.folder.parents[1] / "exits"), out.with_suffix(".out"), out.with_suffix(".err"))


def die_with_parent() -> None:
    """For a child before exec: it is killed when the server is gone."""
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)


async def spawn(argv: list[str], env: Mapping[str, str], cwd: Path | None, out: Path, pass_fds: tuple = ()) -> Process:
    """Run a program. An entrypoint outlives the server that started it, as a worker outlives the control plane."""
    stdout, stderr = out.with_suffix(".out"), out.with_suffix(".err")
    with stdout.open("wb") as first, stderr.open("wb") as second:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=first,
            stderr=second,
            start_new_session=True,
            preexec_fn=None if out.name == ENTRY else die_with_parent,
            pass_fds=pass_fds,
        )
    return Process(process, stdout, stderr)


async def copy(source: Path, target: Path) -> None:
    """Copy a tree as it is: owners, links, what an overlay has marked as removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec("cp", "-a", "-T", str(source), str(target))
    if await process.wait():
        raise OSError(f"{source} was not copied")


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]],
) -> None:
    """Join an accepted connection with the one that `connect` makes, until either ends."""
    try:
        other_reader, other_writer = await connect()
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def base_env(home: str) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LANG": "C.UTF-8", "IS_SANDBOX": "1"}


class Plain:
    """A process tree in a directory."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.root = self.own = plan.folder / "root"
        self.places = {**plan.mounts, **{path: self.root / path[1:] for path in ("/workspace", "/home/agent")}}
        self.ports: dict[int, int] = {}  # of the sandbox -> of this machine, whose ports all boxes share

    @classmethod
    async def start(cls, plan: Plan) -> Plain:
        box = cls(plan)
        if plan.image:
            await copy(plan.image, box.own)
        for place in (box.root, box.root / "home", *box.places.values()):
            place.mkdir(parents=True, exist_ok=True)
        argv = list(plan.argv)
        if "--ssh-port" in argv:
            where = argv.index("--ssh-port") + 1
            box.ports[int(argv[where])] = free = _free_port()
            argv[where] = str(free)
        if "--user" in argv:
            argv[argv.index("--user") + 1] = pwd.getpwuid(os.getuid()).pw_name  # the only user that may be had
        box.entry = await box.run(argv, {}, plan.workdir, ENTRY)
        return box

    @classmethod
    def found(cls, plan: Plan, kept: Mapping[str, Any]) -> Plain:
        box = cls(plan)
        box.ports = {int(inside): outside for inside, outside in kept["ports"].items()}
        box.entry = adopted(plan, kept["entry"])
        return box

    def kept(self) -> dict[str, Any]:
        return {"entry": self.entry.process.pid, "ports": self.ports}

    def _real(self, word: str) -> str:
        if word == INTERPRETER:
            return sys.executable
        for inside, outside in self.places.items():
            if word == inside or word.startswith(inside + "/"):
                return str(outside) + word[len(inside) :]
        return word

    async def run(self, argv: list[str], env: Mapping[str, str], workdir: str, name: str) -> Process:
        full = {**base_env(str(self.root / "home")), **self.plan.env, **env, MARK: self.plan.id}
        cwd = Path(self._real(workdir)) if workdir else self.root
        return await spawn([self._real(word) for word in argv], full, cwd, self.plan.folder / name)

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.ports.get(port, port))

    def kill(self) -> None:
        """End the tree below the entrypoint, it last (orphans fall to it), then what else carries the box's mark."""
        while living := processes.descendants(self.entry.process.pid):
            for pid in living:
                _kill(pid)
        self.entry.kill()
        mark = f"{MARK}={self.plan.id}".encode()
        while living := {pid for pid in _pids() if mark in _environ(pid)}:
            for pid in living:
                _kill(pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
