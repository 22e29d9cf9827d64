"""The first process of an isolated sandbox: makes its world, runs the entrypoint, reaps, ends with its code.

    unshare --mount --pid --net --fork --kill-child python inner.py PLAN.json READY_FD

Everything in the namespaces dies with this process. Only the standard library: it runs before the sandbox has a root.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_SIOCSIFFLAGS, _UP = 0x8914, 0x1 | 0x40
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    if _LIBC.mount(source.encode(), os.fsencode(target), kind.encode() or None, flags, data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def loopback_up() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _UP))


def enter(plan: dict) -> None:
    """Stand in the sandbox's own root: an overlay of this machine, its mounts, /proc and /dev."""
    _LIBC.prctl(1, signal.SIGKILL)
    mount("none", Path("/"), flags=_REC | _PRIVATE)
    root = Path(plan["root"])
    layers = f"lowerdir=/,upperdir={plan['upper']},workdir={plan['work']}"
    mount("overlay", root, "overlay", data=layers)
    for inside, outside in plan["mounts"].items():
        target = root / inside.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        mount(outside, target, flags=_BIND | _REC)
    mount("/dev", root / "dev", flags=_BIND | _REC)
    mount("proc", root / "proc", "proc")
    loopback_up()
    os.chroot(root)
    os.chdir(plan["workdir"])


def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_text())
    enter(plan)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    os.write(int(sys.argv[2]), b"!")
    os.close(int(sys.argv[2]))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
