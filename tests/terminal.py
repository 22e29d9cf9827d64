"""Parhelia on a terminal of its own, as a person has it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time

from tests.front import PARHELIA, Front


class Terminal:
    """A command on a terminal of its own of so many columns."""

    def __init__(self, front: Front, *argv: str, wide: int = 80, **env: str) -> None:
        self.master, side = os.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, wide, 0, 0))
        self.before = termios.tcgetattr(side)
        self.process = subprocess.Popen(
            [PARHELIA, *argv],
            cwd=front.cwd,
            env={**front.env, "TERM": "xterm", **env},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        self.side = side
        self.seen = b""

    def until(self, text: str, within: float = 20) -> str:
        """Read until the text has appeared."""
        deadline = time.monotonic() + within
        while text not in self.seen.decode(errors="replace"):
            assert time.monotonic() < deadline, self.seen.decode(errors="replace")
            self._read()
        return self.seen.decode(errors="replace")

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def end(self, within: float = 20) -> str:
        """What it has shown when it has ended by itself."""
        deadline = time.monotonic() + within
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            assert time.monotonic() < deadline, self.seen.decode(errors="replace")
            self._read()
        assert termios.tcgetattr(self.side) == self.before, "the terminal is not as it was"
        os.close(self.side)
        os.close(self.master)
        text = self.seen.decode(errors="replace").replace("\r\n", "\n")
        assert "Traceback" not in text
        return text

    def _read(self) -> None:
        if select.select([self.master], [], [], 0.05)[0]:
            self.seen += os.read(self.master, 1 << 16)
