"""A PARHELIA_HOME with sessions in it, and people at terminals: each one a tmux of their own that a test types into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.attach.server import run
from tests.attach.test_ssh_server import until

PARHELIA = Path(sys.executable).with_name("parhelia")


class House:
    """One PARHELIA_HOME; `parhelia` is the command line in it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.home, self.workspace = folder, folder / "home", folder / "workspace"
        self.workspace.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "PARHELIA_HOME": str(self.home),
            **settings,
        }

    def parhelia(self, *words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return run([str(PARHELIA), *words], env={**self.env, **env}, cwd=self.workspace)

    def json(self, *words: str) -> Any:
        done = self.parhelia(words[0], "--json", *words[1:])
        return json.loads(done.stdout)

    def start(self, script: str) -> str:
        """The task of a new session that runs `script`."""
        return self.json("run", "-d", "--", "bash", "-c", script)["task_id"]

    def listening(self, task: str) -> Mapping[str, Any]:
        """The state.json of the task's first session once one can attach to it."""
        path = self.home / "tasks" / task / "sessions" / "1" / "state.json"
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(json.loads(path.read_text()) if path.exists() else {})
            return bool(found.get("ssh") and found.get("tmux"))

        until(there)
        return found

    def keys(self, task: str) -> Path:
        return self.home / "keys" / f"{task}.1"

    def close(self) -> None:
        for row in self.json("list", "--status", "pending,starting,running,waiting")["tasks"]:
            self.parhelia("session", "kill", row["task_id"])


class Person:
    """Somebody at a terminal of 100 x 30."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def tmux(self, *words: str) -> str:
        done = run([*self._tmux, *words])
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def sit(self, house: House, *words: str, **env: str) -> None:
        """Type a `parhelia` command line; what it ends with is on the screen as `left with CODE`."""
        names = [f"{name}={value}" for name, value in {**house.env, **env}.items()]
        line = [
            "sh",
            "-c",
            'env -i TERM="$TERM" "$@"; echo "left with $?"; exec cat',
            "sh",
            *names,
            str(PARHELIA),
            *words,
        ]
        self.tmux("set", "-g", "default-terminal", "screen-256color", ";", "set", "-g", "escape-time", "0", ";",
                  "new-session", "-d", "-x", "100", "-y", "30", *line)  # fmt: skip

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    def see(self, *texts: str) -> None:
        """Wait until all of this is on the screen."""
        try:
            until(lambda: all(text in self.screen for text in texts))
        except AssertionError:
            raise AssertionError(f"{texts} did not come on the screen:\n{self.screen}") from None

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", "--", text)
        self.tmux("send-keys", "Enter")

    def enter(self, house: House, task: str, window: int, *words: str, **env: str) -> None:
        """Attach and go to one of the windows: 0 is the agent's, 1 a shell."""
        self.sit(house, "attach", task, *words, **env)
        self.see(f"{task}.1 | running")
        self.press(str(window))
        self.see(f"{window}:{('agent', 'shell', 'log')[window]}*")

    def leave(self) -> None:
        self.press("d")
        self.see("left with 0")

    def press(self, key: str) -> None:
        """The session's prefix and a key. The terminal shows that the first arrived before the second is sent."""
        self.tmux("send-keys", "C-b", ";", "run-shell", "-d", "0.05", "true", ";", "send-keys", key)

    def close(self) -> None:
        run([*self._tmux, "kill-server"])


@contextmanager
def people(folder: Path) -> Iterator[Callable[[], Person]]:
    """Makes people; they all leave at the end."""
    came: list[Person] = []

    def one() -> Person:
        came.append(Person(Path("/tmp") / f"parhelia-person-{uuid.uuid4().hex[:8]}"))
        return came[-1]

    try:
        yield one
    finally:
        for person in came:
            person.close()
