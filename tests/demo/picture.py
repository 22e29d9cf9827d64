"""Record the demo in a terminal and draw it as tests/demo/demo.svg: `make picture`."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
COLUMNS, ROWS = 92, 60


def recorded() -> str:
    """What a terminal of this size is sent while the demo runs."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.execv(sys.executable, [sys.executable, str(HERE / "demo.py")])
    sent = b""
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # Linux says so when the other side is closed
            break
        if not data:
            break
        sent += data
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"the demo failed:\n{sent.decode(errors='replace')}")
    return sent.decode().replace("\r\n", "\n")


def main() -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(recorded().rstrip()))
    console.save_svg(str(HERE / "demo.svg"), title="make demo", unique_id="demo")


if __name__ == "__main__":
    main()
