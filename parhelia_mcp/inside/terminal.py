"""What a person sees who attaches: tmux on a socket of its own, with a view of the agent, a shell and the log.

It is a convenience: without tmux the session runs all the same, and says so once.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio

from parhelia_mcp import model
from parhelia_mcp.inside.owner import Owner
from parhelia_mcp.plain import clean

SESSION = "parhelia"
_FULL = 8 << 20  # bytes after which a view starts over: it is for reading along, the logs keep everything
_CONFIG = """\
set -g default-terminal screen-256color
set -g history-limit 20000
set -g mouse on
set -g status-interval 0
set -g status-left ""
set -g status-right-length 120
set -g status-right "#{@parhelia}"
set -g set-titles off
set -g exit-empty off
set -s escape-time 10
set-hook -g client-detached "run-shell -b 'TELL left'"
"""
_TAKE_OVER = """\
bind-key -n F12 display-menu -T " take over the conversation " \
  "when this turn ends" t "run-shell -b 'TELL take-over'" \
  "now, interrupting it" n "run-shell -b 'TELL take-over now'" \
  "leave it" q ""
"""
_AGENT = f"={SESSION}:agent"
_FOLLOW = ("tail", "-n", "1000", "-F")


class Terminal:
    """The tmux session of a session. `show` and `log` work before and without tmux: they write files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.socket = folder / "tmux"
        self.tell = folder / "tell"  # a program that tells the runner what happens in the terminal
        self.opened = anyio.Event()  # it has been started, or cannot be: `trouble`
        self.trouble = ""
        self._folder = folder
        self._view = (folder / "view.txt").open("a", encoding="utf-8", errors="replace")
        self._log = (folder / "log.txt").open("a", encoding="utf-8", errors="replace")

    def show(self, text: str) -> None:
        """Add to what the first window shows."""
        _add(self._view, text)

    def log(self, line: str) -> None:
        """Add a line to what the window `log` shows."""
        _add(self._log, f"{model.timestamp()} {line}\n")

    def start(self, env: Mapping[str, str], workspace: Path, owner: Owner | None = None, *, keys: bool = False) -> None:
        """Start tmux; `trouble` says what is wrong. With `keys` F12 takes the conversation over.

        Takes some milliseconds: call it in a thread.
        """
        program = shutil.which("tmux", path=env.get("PATH"))
        if program is None:
            self.trouble = "tmux is not installed: no live view (install: apt-get install tmux)"
            return
        config = self._configure(keys)
        if owner is not None:
            owner.give(self._folder)
        shell = env.get("SHELL") or "/bin/sh"
        started = subprocess.run(
            [program, "-S", str(self.socket), "-f", str(config)]
            + ["new-session", "-d", "-s", SESSION, "-n", "agent", "-x", "160", "-y", "48"]
            + ["-c", str(workspace), *_FOLLOW, str(self._folder / "view.txt")]
            + [";", "new-window", "-d", "-t", f"={SESSION}:", "-n", "shell", "-c", str(workspace), shell]
            + [";", "new-window", "-d", "-t", f"={SESSION}:", "-n", "log", *_FOLLOW, str(self._folder / "log.txt")],
            env={"TERM": "xterm-256color", "LANG": "C.UTF-8", **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
            start_new_session=True,
            **(owner.as_arguments() if owner else {}),
        )
        if started.returncode:
            self.trouble = f"tmux did not start: {started.stderr.decode(errors='replace')[:300]}"

    def _configure(self, keys: bool) -> Path:
        script = Path(__file__).with_name("tell.py")
        command = shlex.join((sys.executable, "-I", "-S", str(script), str(self._folder.parent / "agent")))
        self.tell.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        self.tell.chmod(0o755)
        config = self._folder / "tmux.conf"
        config.write_text((_CONFIG + (_TAKE_OVER if keys else "")).replace("TELL", str(self.tell)))
        return config

    # A program in the window `agent`. Each call takes some milliseconds: make it in a thread.

    def run(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> int:
        """Run a program in the window `agent` instead of the view; returns its process id.

        What it gets in `env` goes over a pipe: arguments can be seen by everybody.
        """
        given = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        words = ["respawn-pane", "-k", "-t", _AGENT, "-c", str(cwd), *given, *argv]
        self._tmux("set", "-w", "-t", _AGENT, "remain-on-exit", "on")
        self._tmux("source-file", "-", stdin=shlex.join(words).encode() + b"\n")
        return int(self._tmux("display-message", "-p", "-t", _AGENT, "#{pane_pid}") or 0)

    def left(self) -> int | None:
        """How the program in the window `agent` ended: its exit code, -N for signal N; None where nobody knows.

        tmux knows of the end before it knows how, and may miss the signal that would tell it (3.3a, with somebody
        attached): it is sent once more.
        """
        for _ in range(100):
            asked = self._tmux("display-message", "-p", "-t", _AGENT, "#{pane_dead_status}/#{pane_dead_signal}/#{pid}")
            status, _, rest = asked.strip().partition("/")
            number, _, server = rest.partition("/")
            if status or number:
                return int(status) if status else -int(number)
            if server.isdecimal():
                with suppress(ProcessLookupError):
                    os.kill(int(server), signal.SIGCHLD)
            time.sleep(0.05)
        return None

    def watched(self) -> bool:
        """Whether somebody is attached."""
        return bool(self._tmux("list-clients", "-t", f"={SESSION}").strip())

    def follow(self) -> None:
        """Show the view in the window `agent` again."""
        self._tmux("respawn-pane", "-k", "-t", _AGENT, *_FOLLOW, str(self._folder / "view.txt"))

    def type(self, text: str, *, paste: bool = False) -> None:
        """Give the program in the window `agent` these characters, as keys or as one paste.

        They reach it also while somebody scrolls there; a newline is the Enter key.
        """
        self._tmux("load-buffer", "-b", "parhelia", "-", stdin=text.encode(errors="replace"))
        self._tmux("paste-buffer", "-d", "-b", "parhelia", *(["-p"] if paste else []), "-t", _AGENT)

    def shown(self) -> list[str]:
        """The lines of text that the window `agent` shows."""
        return [line for line in clean(self._tmux("capture-pane", "-p", "-t", _AGENT)).splitlines() if line.strip()]

    def coloured(self) -> str:
        """What the window `agent` shows, with the escapes of its colours."""
        return self._tmux("capture-pane", "-p", "-e", "-t", _AGENT)

    def _tmux(self, *words: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self.socket), *words], input=stdin, capture_output=True, timeout=10, check=False
        )
        return done.stdout.decode(errors="replace")

    def screen(self) -> bytes:
        """What the windows of the agent and the shell show now; nothing where tmux does not answer."""
        windows = (f"={SESSION}:{name}" for name in ("agent", "shell"))
        looks = [part for window in windows for part in (";", "capture-pane", "-p", "-t", window)]
        try:
            seen = subprocess.run(
                ["tmux", "-S", str(self.socket), *looks[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=2,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return b""
        return seen.stdout.rstrip() + b"\n" if seen.returncode == 0 else b""

    def status(self, text: str) -> None:
        """Show `text` in the status line; tmux would obey a `#` in it, so there is none. Call it in a thread."""
        line = clean(text).replace("#", "")
        subprocess.run(
            ["tmux", "-S", str(self.socket), "set", "-g", "@parhelia", line, ";", "refresh-client", "-S"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
            check=False,
        )


def _add(file, text: str) -> None:
    try:
        if file.tell() > _FULL:
            file.seek(0)
            file.truncate()
        file.write(clean(text))
        file.flush()
    except OSError:
        return  # a full disk: the view is the first thing to do without
