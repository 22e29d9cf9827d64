"""What a person sees who attaches: tmux on a socket of its own, with a view of the agent, a shell and the log.

It is a convenience: without tmux the session runs all the same, and says so once.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

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
"""


class Terminal:
    """The tmux session of a session. `show` and `log` work before and without tmux: they write files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.socket = folder / "tmux"
        self._folder = folder
        self._view = (folder / "view.txt").open("a", encoding="utf-8", errors="replace")
        self._log = (folder / "log.txt").open("a", encoding="utf-8", errors="replace")

    def show(self, text: str) -> None:
        """Add to what the first window shows."""
        _add(self._view, text)

    def log(self, line: str) -> None:
        """Add a line to what the window `log` shows."""
        _add(self._log, f"{model.timestamp()} {line}\n")

    def start(self, env: Mapping[str, str], workspace: Path, owner: Owner | None = None) -> str:
        """Start tmux; returns what is wrong, or nothing. Takes some milliseconds: call it in a thread."""
        program = shutil.which("tmux", path=env.get("PATH"))
        if program is None:
            return "tmux is not installed: no live view (install: apt-get install tmux)"
        config = self._folder / "tmux.conf"
        config.write_text(_CONFIG)
        if owner is not None:
            owner.give(self._folder)
        tmux = [program, "-S", str(self.socket), "-f", str(config)]
        shell = env.get("SHELL") or "/bin/sh"
        clean_env = {"TERM": "xterm-256color", "LANG": "C.UTF-8", **env}
        follow = ["tail", "-n", "1000", "-F"]
        started = subprocess.run(
            [*tmux, "new-session", "-d", "-s", SESSION, "-n", "agent", "-x", "160", "-y", "48"]
            + ["-c", str(workspace), *follow, str(self._folder / "view.txt")]
            + [";", "new-window", "-d", "-t", f"={SESSION}:", "-n", "shell", "-c", str(workspace), shell]
            + [";", "new-window", "-d", "-t", f"={SESSION}:", "-n", "log", *follow, str(self._folder / "log.txt")],
            env=clean_env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
            start_new_session=True,
            **(owner.as_arguments() if owner else {}),
        )
        return "" if started.returncode == 0 else f"tmux did not start: {started.stderr.decode(errors='replace')[:300]}"

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
