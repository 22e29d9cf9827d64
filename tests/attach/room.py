"""A PARHELIA_HOME with sessions in it, and people at terminals: each one a tmux of their own that a test types into."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.attach.server import run
from tests.front import PARHELIA, Front, eventually


class House(Front):
    """A user with sessions that people come to."""

    def begin(self, script: str) -> str:
        """The task of a new session that runs `script`."""
        return json.loads(self.run("run", "-d", "--json", "--", "bash", "-c", script).stdout)["task_id"]

    def listening(self, task: str) -> Mapping[str, Any]:
        """The state.json of the task's first session once one can attach to it."""
        path = self.home / "tasks" / task / "sessions" / "1" / "state.json"

        def ready() -> Mapping[str, Any] | None:
            state = json.loads(path.read_text()) if path.exists() else {}
            return state if state.get("ssh") and state.get("tmux") else None

        return eventually(ready, what=f"the ssh server of {task}")

    def keys(self, task: str) -> Path:
        return self.home / "keys" / f"{task}.1"


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
            PARHELIA,
            *words,
        ]
        self.tmux("set", "-g", "default-terminal", "screen-256color", ";", "set", "-g", "escape-time", "0", ";",
                  "new-session", "-d", "-x", "100", "-y", "30", *line)  # fmt: skip

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    def see(self, *texts: str, within: float = 120) -> None:
        """Wait until all of this is on the screen."""
        try:
            eventually(lambda: all(text in self.screen for text in texts), within=within)
        except AssertionError:
            raise AssertionError(f"{texts} did not come on the screen:\n{self.screen}") from None

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", "--", text)
        self.tmux("send-keys", "Enter")

    def take_over(self, doing: str) -> None:
        """Interrupt the agent in what its window shows, and have its conversation."""
        self.see(doing, "F12: take over")
        self.tmux("send-keys", "F12")
        self.see("now, interrupting it")
        self.tmux("send-keys", "n")
        self.see("Interrupted", "/exit hands back")

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
