"""Parhelia as its users have it: the installed command, an empty HOME, a PARHELIA_HOME of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parhelia_mcp.providers.base import Handle
from parhelia_mcp.providers.local import Local

PARHELIA = str(Path(sys.executable).parent / "parhelia")
SERVER = str(Path(sys.executable).parent / "parhelia-mcp")


class Front:
    """One user: runs commands in `cwd` and reads what they say."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.root = root
        self.user_home = root / "user"
        self.home = root / "state"
        self.cwd = root / "project"
        self.user_home.mkdir(parents=True, exist_ok=True)
        self.cwd.mkdir(exist_ok=True)
        self.env = {
            "HOME": str(self.user_home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PARHELIA_HOME": str(self.home),
            **environment,
        }

    def command(self, *argv: str) -> list[str]:
        """The argv of a command, for a test that runs it in its own way."""
        return [PARHELIA, *argv]

    def start(
        self, *argv: str, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([PARHELIA, *argv], cwd=cwd or self.cwd, env={**self.env, **(env or {})}, **options)

    def run(
        self,
        *argv: str,
        code: int | None = 0,
        stdin: bytes = b"",
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command and hold it to its exit code (None: any). Nothing may ever print a traceback."""
        done = subprocess.run(
            [PARHELIA, *argv],
            cwd=cwd or self.cwd,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        said = f"{argv} -> {done.returncode}\nstdout: {done.stdout[-3000:].decode(errors='replace')}\nstderr: {done.stderr[-3000:].decode(errors='replace')}"
        assert b"Traceback" not in done.stdout + done.stderr, said
        assert code is None or done.returncode == code, said
        return done

    def text(self, *argv: str, **options: Any) -> str:
        return self.run(*argv, **options).stdout.decode()

    def json(self, *argv: str, **options: Any) -> Any:
        """The one object that `--json` prints."""
        out = self.run(*argv, "--json", **options).stdout
        assert out.count(b"\n") == 1, out
        value = json.loads(out)
        assert value["schema_version"] == 1
        return value

    def error(self, *argv: str, code: int, **options: Any) -> dict[str, str]:
        """The error that `--json` prints."""
        return json.loads(self.run(*argv, "--json", code=code, **options).stdout)["error"]

    def show(self, id: str) -> dict[str, Any]:
        return self.json("task", "show", id)

    def until(self, id: str, *states: str, within: float = 120) -> dict[str, Any]:
        """The task once it is in one of these states, as another process sees it."""
        return eventually(
            lambda: shown if (shown := self.show(id))["state"] in states else None,
            within=within,
            what=f"{id} to be {states}",
        )

    def submit(self, *argv: str, **options: Any) -> str:
        """Start a command session, as `run -d` does, and return its task id."""
        return json.loads(self.run("run", "-d", "--json", "--", *argv, **options).stdout)["task_id"]

    def git(self, *argv: str, cwd: Path | None = None) -> str:
        env = {
            **self.env,
            "GIT_AUTHOR_NAME": "U",
            "GIT_AUTHOR_EMAIL": "u@example.com",
            "GIT_COMMITTER_NAME": "U",
            "GIT_COMMITTER_EMAIL": "u@example.com",
        }
        done = subprocess.run(["git", *argv], cwd=cwd or self.cwd, env=env, capture_output=True, check=True)
        return done.stdout.decode(errors="surrogateescape")

    def repository(self, **names: str) -> Path:
        """Make the project a git repository with one commit of these files."""
        self.git("init", "-q", "-b", "main")
        for name, text in (names or {"a.txt": "one\n"}).items():
            path = self.cwd / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "first")
        return self.cwd

    def close(self) -> None:
        """End everything this user started, by its own records."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.home / "controller.lock").read_text()), signal.SIGKILL)
        provider = Local(self.home, self.env)
        for folder in self.home.glob("tasks/*/sessions/*"):
            name = f"{folder.parent.parent.name}.{folder.name}"
            provider.open(Handle("local", name, {})).terminate()


def eventually(look: Callable[[], Any], *, within: float = 120, what: str = "it") -> Any:
    """The first true answer of `look`; fails when none comes in time.

    It rests three times as long as it looks: a look is often a whole process, and must not starve what it waits for.
    """
    deadline = time.monotonic() + within
    while (began := time.monotonic()) < deadline:
        if answer := look():
            return answer
        time.sleep(min(1.0, max(0.03, 3 * (time.monotonic() - began))))
    raise AssertionError(f"waited {within} s for {what}")
