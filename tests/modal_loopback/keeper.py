"""Keep the server alive: one that is killed comes back at once, with its ports and what it knew.

    python -m tests.modal_loopback.keeper --state DIR --port-file FILE [--plain]

Sandboxes live on meanwhile, as they do when Modal's control plane dies. Those whose server is gone fall to this
process, which writes how they end to DIR/exits/PID. When the server ends in order, so does everything.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from parhelia_mcp import processes

_SUBREAPER = 36


def main() -> int:
    arguments = sys.argv[1:]
    exits = Path(arguments[arguments.index("--state") + 1]) / "exits"
    exits.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    held = [_reserved(), _reserved()]  # nobody else gets the ports while the server is away
    arguments += ["--ports", *[str(one.getsockname()[1]) for one in held]]
    server = _start(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os.kill(server, number))
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if ended.si_pid != server:
            (exits / str(ended.si_pid)).write_text(str(code))  # before the process is gone: nobody looks in between
        os.waitpid(ended.si_pid, 0)
        if ended.si_pid == server:
            if code != -signal.SIGKILL:
                break
            server = _start(arguments)
    while left := processes.descendants(os.getpid()):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.wait()
    return code


def _reserved() -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def _start(arguments: list[str]) -> int:
    return subprocess.Popen([sys.executable, "-m", "tests.modal_loopback", *arguments], stdin=subprocess.DEVNULL).pid


if __name__ == "__main__":
    sys.exit(main())
