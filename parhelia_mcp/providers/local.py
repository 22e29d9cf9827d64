"""Sessions as processes of this machine: no account, nothing to copy, and the same contract as any other provider.

A sandbox is a guard and its runner (`parhelia_mcp.inside`), detached from whoever started them. It is found again by
what lies in its session's directory: `sandbox.json` (who was started), `runner.lock` (held while it runs), `state.json`
(the runner's own word) and `exit.json` (how it ended, by the guard or by `terminate`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from parhelia_mcp import files, locks, model, processes
from parhelia_mcp.errors import Busy, LocalFault, Refused, Unreachable
from parhelia_mcp.providers import contained
from parhelia_mcp.providers.base import DEADLINE, Completed, Exit, Handle, Listed, Properties, SandboxSpec, ignore

SSH_PORT = 2222  # what `tunnel` calls the session's ssh server, wherever it listens
_PASSED = (  # what of our environment a runner gets: what finds programs and networks, no secret
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SHELL", "USER", "LOGNAME", "TMPDIR", "TERM"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
    "PARHELIA_FAILPOINT",
)


class Local:
    """Runs sandboxes below `home`/tasks with the environment's programs."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._environment = os.environ if environment is None else environment

    @cached_property
    def properties(self) -> Properties:
        return Properties(
            name="local",
            local_disk=True,
            gpus=_gpus(),
            regions=False,
            max_lifetime_hours=None,
            own_uid=False,
            bills=False,
        )

    def start(self, spec: SandboxSpec, *, deadline: float = DEADLINE) -> Handle:
        task, number = model.split_session(spec.name)
        if spec.sizes.gpu and spec.sizes.gpu not in self.properties.gpus:
            has = ", ".join(self.properties.gpus) or "none"
            raise Refused(
                "gpu-unavailable", f"This machine has no {spec.sizes.gpu} (it has: {has}).", "--provider modal"
            )
        task_dir = self._home / "tasks" / task
        session_dir = files.private_dir(task_dir / "sessions" / str(number))
        with locks.exclusive(session_dir / "start.lock", wait_s=deadline, what=f"the start of {spec.name}"):
            if not (session_dir / "sandbox.json").exists():
                guard = self._spawn(spec, task_dir, number, session_dir)
                files.replace_json(
                    session_dir / "sandbox.json",
                    {
                        "v": 1,
                        "guard": guard and guard._asdict(),
                        "tags": dict(spec.tags),
                        "created_at": model.timestamp(),
                    },
                    durable=True,
                )
        return Handle("local", spec.name, {})

    def _spawn(self, spec: SandboxSpec, task_dir: Path, number: int, session_dir: Path) -> processes.Identity | None:
        """Start the guard, detached: it survives us, our terminal and our process group."""
        ours, theirs = os.pipe()
        argv = [sys.executable, "-P", "-m", "parhelia_mcp.inside", str(task_dir), str(number)]
        argv += ["--lifetime", str(spec.timeout_s), "--credential-fd", str(ours)]
        try:
            with open(session_dir / "runner.log", "ab", opener=_private) as log:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=task_dir,
                    env={**_passed(self._environment), processes.MARKER: spec.name},
                    start_new_session=True,
                    pass_fds=(ours,),
                )
            os.close(ours)
            files.write_all(theirs, json.dumps(dict(spec.credential)).encode())
        except OSError as problem:
            raise LocalFault(
                "start-failed", f"The runner could not be started: {problem}.", "parhelia doctor"
            ) from None
        finally:
            os.close(theirs)
        threading.Thread(target=child.wait, daemon=True).start()  # no zombie while we live; it outlives us
        return processes.identity(child.pid)

    def open(self, handle: Handle) -> LocalSandbox:
        return LocalSandbox(self._home, handle.name, self._environment)

    def list(self, owner: str, *, deadline: float = DEADLINE) -> list[Listed]:
        found = []
        for path in sorted(self._home.glob("tasks/*/sessions/*/sandbox.json")):
            record = files.read_json(path) or {}
            name = f"{path.parents[2].name}.{path.parent.name}"
            if record.get("tags", {}).get("owner") != owner:
                continue
            handle = Handle("local", name, {})
            if self.open(handle).poll() is None:
                found.append(Listed(handle, record["tags"], record["created_at"]))
        return found

    def withdraw(self, name: str, *, deadline: float = DEADLINE) -> None:
        self.open(Handle("local", name, {})).terminate(deadline=deadline)

    def discard(self, image: str, *, deadline: float = DEADLINE) -> None:
        """This machine keeps none."""

    def rates(self, *, deadline: float = DEADLINE) -> None:
        """This machine sends no bill."""


class LocalSandbox:
    """One sandbox, found again from the files of its session."""

    def __init__(self, home: Path, name: str, environment: Mapping[str, str]) -> None:
        task, number = model.split_session(name)
        self._name = name
        self._root = home / "tasks" / task
        self._session = self._root / "sessions" / str(number)
        self._environment = environment
        self.task_dir = PurePosixPath(self._root)
        self.workspace = PurePosixPath(self._root / "workspace")

    def poll(self, *, deadline: float = DEADLINE) -> Exit | None:
        if locks.held(self._session / "runner.lock") or self._known():
            return None
        seen = files.read_json(self._session / "exit.json")
        return Exit(seen["code"], seen["cause"]) if seen else Exit(None, "vanished")

    def _known(self) -> list[processes.Identity]:
        """The guard and the runner, as far as they are alive."""
        return [
            who
            for who in dict.fromkeys([*self._guards(), *_identities(self._state(), "runner")])
            if processes.alive(who)
        ]

    def _guards(self) -> list[processes.Identity]:
        started = files.read_json(self._session / "sandbox.json") or {}
        return _identities(started, "guard") + _identities(self._state(), "guard")

    def _state(self) -> dict[str, Any]:
        return files.read_json(self._session / "state.json") or {}

    def exec(self, argv: tuple[str, ...], *, stdin: bytes = b"", deadline: float = DEADLINE) -> Completed:
        if self.poll() is not None:
            raise Unreachable(
                "sandbox-ended", f"The sandbox of {self._name} has ended.", f"parhelia status {self._name}"
            )
        workspace = self._root / "workspace"
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=workspace if workspace.is_dir() else self._root,
                env={**_passed(self._environment), "HOME": str(self._root / "home"), processes.MARKER: self._name},
                start_new_session=True,
            )
        except OSError as problem:  # as a shell says it
            code = 127 if isinstance(problem, FileNotFoundError) else 126
            return Completed(code, b"", f"{argv[0]}: {problem.strerror}\n".encode())
        try:
            out, err = child.communicate(stdin, timeout=deadline)
        except subprocess.TimeoutExpired:
            processes.end(lambda: _session_of(child.pid))
            child.communicate()
            what = f"{argv[0]} did not end within {deadline:g} s and was ended."
            raise Unreachable("exec-timeout", what, f"parhelia status {self._name}") from None
        return Completed(child.returncode, out, err)

    def put(
        self, path: str, source: bytes | Path, *, deadline: float = DEADLINE, seen: Callable[[int], None] = ignore
    ) -> None:
        contained.put(self._root, path, source, seen)

    def get(self, path: str, target: Path, *, deadline: float = DEADLINE) -> None:
        contained.get(self._root, path, target)

    def read(self, path: str, offset: int = 0, limit: int = 1 << 20, *, deadline: float = DEADLINE) -> bytes:
        return contained.read(self._root, path, offset, limit)

    def names(self, path: str, *, deadline: float = DEADLINE) -> list[str]:
        return contained.names(self._root, path)

    def control(self, request: Mapping[str, Any], *, deadline: float = DEADLINE) -> Mapping[str, Any]:
        state = self._state()
        end = time.monotonic() + deadline
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(deadline)
                line.connect(state["control"])
                line.sendall(json.dumps(dict(request)).encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    line.settimeout(max(0.001, end - time.monotonic()))
                    part = line.recv(1 << 16)
                    if not part:
                        raise ConnectionResetError("closed before it answered")
                    answer += part
                return json.loads(answer)
        except (OSError, KeyError) as problem:
            what = f"The runner of {self._name} did not answer ({problem or 'no answer'})."
            raise Unreachable("no-answer", what, f"parhelia status {self._name}") from None

    def tunnel(self, port: int, *, deadline: float = DEADLINE) -> tuple[str, int]:
        state = self._state()
        if self.poll() is not None or (port == SSH_PORT and not state.get("ssh")):
            what = f"Nothing of {self._name} listens for port {port}."
            raise Unreachable("no-tunnel", what, f"parhelia status {self._name}")
        return "127.0.0.1", state["ssh"]["port"] if port == SSH_PORT else port

    def remove(self, path: str, *, deadline: float = DEADLINE) -> None:
        if self.poll() is None:
            raise Busy("session-lives", f"{self._name} still writes there; nothing was removed.", "wait for its end")
        contained.remove(self._root, path)

    def snapshot(self, ttl_s: int, *, deadline: float = DEADLINE) -> None:
        """Its files are this machine's own."""

    def terminate(self, *, deadline: float = DEADLINE) -> Exit:
        """The runner goes first, so that what it leaves falls to the guard, whatever it did to its environment."""
        runtime = self._state().get("runtime")
        guards = {who.pid for who in self._guards()} | {os.getpid()}
        left = [
            *processes.end(lambda: self._members(guards), spare=guards, within_s=deadline / 2),
            *processes.end(lambda: self._members({os.getpid()}), within_s=deadline / 2),
        ]
        if left or self.poll() is None:
            what = f"Processes of {self._name} are still there after SIGKILL: {sorted(left)}."
            raise Unreachable("not-ended", what, f"parhelia kill {self._name}")
        if not (self._session / "exit.json").exists():
            with suppress(OSError):  # a full disk hides only the cause
                files.replace_json(self._session / "exit.json", {"code": None, "cause": "terminated"})
        if runtime:
            shutil.rmtree(runtime, ignore_errors=True)
        ended = self.poll()
        assert ended is not None
        return ended

    def cost(self, *, deadline: float = DEADLINE) -> None:
        """Nobody bills it."""

    def _members(self, spare: set[int]) -> Mapping[int, processes.Stat]:
        return processes.members(self._name, [who.pid for who in self._known()], spare)


def _passed(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in _PASSED if name in environment}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _identities(record: Mapping[str, Any], name: str) -> list[processes.Identity]:
    return [processes.Identity(**record[name])] if record.get(name) else []


def _session_of(leader: int) -> dict[int, processes.Stat]:
    """The living processes of the session that `leader` leads."""
    return {pid: row for pid, row in processes.table().items() if row.session == leader and not row.dead}


def _gpus() -> tuple[str, ...]:
    """The GPUs of this machine by the names that `--gpu` takes."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    names = re.findall(r"^GPU \d+: (?:NVIDIA |Tesla |GeForce )*(.+?) \(UUID", listed, re.MULTILINE)
    return tuple(
        dict.fromkeys(re.split(r"[-\s](?=\d+GB|SXM|PCI|HBM|NVL)", name)[0].replace(" ", "-") for name in names)
    )
