"""Sandboxes with namespaces of their own: absolute paths, ports and the end of every process are as on Modal.

Root on Linux only. The files are an overlay over this machine's; the network is a loopback of its own, joined to ours
by sockets that are opened inside: tunnels in, and chosen ports (`egress`) out, such as a fake model API's.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.modal_loopback.boxes import ENTRY, INTERPRETER, Plan, Process, adopted, base_env, copy, relay, spawn

ROOT = Path(__file__).resolve().parents[2]
HOME = "/home/sandbox"
AGENT_HOME, AGENT_ID = "/home/agent", 4242
_NEW_NETWORK = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Isolated:
    """A world of its own; pid 1 in it is `inner.py`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.upper, self.root = plan.folder / "upper", plan.folder / "root"
        self.own = self.upper
        self._doors: list[asyncio.Server] = []

    @classmethod
    async def start(cls, plan: Plan) -> Isolated:
        box = cls(plan)
        if plan.image:
            await copy(plan.image, box.own)
        for folder in (box.upper, box.root, plan.folder / "work", *plan.mounts.values()):
            folder.mkdir(parents=True, exist_ok=True)
        box._furnish()
        workdir = plan.workdir or "/"
        (box.upper / workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
        inner = {
            "root": str(box.root),
            "upper": str(box.upper),
            "work": str(plan.folder / "work"),
            "mounts": {**_elsewhere(), **{inside: str(outside) for inside, outside in plan.mounts.items()}},
            "argv": plan.argv,
            "env": {**base_env(HOME), **plan.env},
            "workdir": workdir,
        }
        (plan.folder / "plan.json").write_text(json.dumps(inner))
        await box._launch()
        for port in plan.egress:
            await box._let_out(port)
        return box

    @classmethod
    def found(cls, plan: Plan, kept: Mapping[str, Any]) -> Isolated:
        """As it was; the ports that lead out of it are not opened again."""
        box = cls(plan)
        box.entry, box.pid = adopted(plan, kept["entry"]), kept["pid"]
        return box

    def kept(self) -> dict[str, Any]:
        return {"entry": self.entry.process.pid, "pid": self.pid}

    def _furnish(self) -> None:
        """What the image that Parhelia builds has and this machine has not."""
        (self.upper / HOME.lstrip("/")).mkdir(parents=True, exist_ok=True)
        interpreter = self.upper / INTERPRETER.lstrip("/")
        interpreter.parent.mkdir(parents=True, exist_ok=True)
        interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        interpreter.chmod(0o755)
        self._add_agent()
        for path in _needed():
            self._let_everybody_pass(path)

    def _add_agent(self) -> None:
        """The user whom the agent runs as."""
        etc = self.upper / "etc"
        etc.mkdir(exist_ok=True)
        home = self.upper / AGENT_HOME.lstrip("/")
        home.mkdir(parents=True, exist_ok=True)
        os.chown(home, AGENT_ID, AGENT_ID)
        for name, line in (
            ("passwd", f"agent:x:{AGENT_ID}:{AGENT_ID}::{AGENT_HOME}:/bin/sh"),
            ("group", f"agent:x:{AGENT_ID}:"),
        ):
            kept = [one for one in Path("/etc", name).read_text().splitlines() if not one.startswith("agent:")]
            (etc / name).write_text("\n".join([*kept, line]) + "\n")

    def _let_everybody_pass(self, path: Path) -> None:
        """What an image has installed is open to all its users; here it may lie in root's home."""
        for folder in [path, *path.parents][:-1]:
            above = self.upper / str(folder).lstrip("/")
            mode = folder.stat().st_mode
            if mode & 0o005 != 0o005 and (folder == path or mode & 0o001 == 0):
                above.mkdir(parents=True, exist_ok=True)
                above.chmod(mode & 0o7777 | (0o055 if folder == path else 0o011))

    async def _launch(self) -> None:
        ready, theirs = os.pipe()
        argv = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", sys.executable, "-I"]
        argv += [str(Path(__file__).with_name("inner.py")), str(self.plan.folder / "plan.json"), str(theirs)]
        try:
            self.entry = await spawn(argv, base_env(HOME), None, self.plan.folder / ENTRY, (theirs,))
            os.close(theirs)
            if not await asyncio.to_thread(os.read, ready, 1):
                raise OSError(self.entry.stderr.read_text()[-2000:])
        finally:
            os.close(ready)
        outer = self.entry.process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        self.pid = int(children[0]) if children else 0  # 0: what it ran has ended already

    async def run(self, argv: list[str], env: Mapping[str, str], workdir: str, name: str) -> Process:
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-r", f"-w{workdir}", "--"]
        full = {**base_env(HOME), **self.plan.env, **env}
        return await spawn([*enter, *argv], full, None, self.plan.folder / name)

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = await asyncio.to_thread(self._socket)
        line.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
        except OSError:
            line.close()
            raise
        return await asyncio.open_connection(sock=line)

    async def _let_out(self, port: int) -> None:
        """Make 127.0.0.1:`port` inside lead to the same port of this machine."""
        door = await asyncio.to_thread(self._socket)
        door.bind(("127.0.0.1", port))
        outside = lambda: asyncio.open_connection("127.0.0.1", port)  # noqa: E731 -- one use
        self._doors.append(await asyncio.start_server(lambda r, w: relay(r, w, outside), sock=door))

    def _socket(self) -> socket.socket:
        """A socket that lives in the sandbox's network; this thread is in it for a moment."""
        with Path("/proc/thread-self/ns/net").open() as ours, Path(f"/proc/{self.pid}/ns/net").open() as theirs:
            _enter_network(theirs.fileno())
            try:
                made = socket.socket()
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                return made
            finally:
                _enter_network(ours.fileno())

    def kill(self) -> None:
        for door in self._doors:
            door.get_loop().call_soon_threadsafe(door.close)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _enter_network(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _elsewhere() -> dict[str, str]:
    """What the sandbox needs of this machine that does not lie on the root file system: the overlay lacks it."""
    device = Path("/").stat().st_dev
    return {str(path): str(path) for path in _needed() if path.stat().st_dev != device}


def _needed() -> list[Path]:
    needed = {ROOT, Path(sys.prefix), Path(sys.base_prefix), Path.home() / ".cache" / "parhelia-tests"}
    return sorted(path for path in needed if path.exists())


def works(folder: Path) -> bool:
    """Whether this machine lets us: tried, not guessed."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        return False

    async def attempt() -> bool:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                box = await Isolated.start(Plan("try", Path(place), ("true",), {}, "", {}))
            except OSError:
                return False
            return await box.entry.process.wait() == 0

    return asyncio.run(attempt())
