"""A port on this machine that leads to a session, wherever its tunnel is at that moment."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from parhelia_mcp.errors import Problem

WANTED = 2222
_CHUNK = 65536
_CONNECT_S = 10.0


class LocalPort:
    """Listens on 127.0.0.1 and joins every connection to a new one to `where()`, until it is closed.

    `where` is asked for each connection, because a tunnel may move; when it raises a Problem, or nothing answers
    there, the connection is closed at once.
    """

    def __init__(self, where: Callable[[], tuple[str, int]], wanted: int = WANTED) -> None:
        self._where = where
        self._listener = _bind(wanted)
        self.port: int = self._listener.getsockname()[1]
        self.moved = self.port != wanted  # `wanted` is in use by another program
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections. Those that are open go on until one side ends."""
        with suppress(OSError):  # wakes the accepting thread; says so where nothing was connected
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near:
            try:
                far = socket.create_connection(self._where(), _CONNECT_S)
            except (OSError, Problem):
                return
            with far:
                far.settimeout(None)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                back.start()
                _pump(near, far)
                back.join()


def _bind(wanted: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    )  # on these systems: past TIME_WAIT, not past an owner
    try:
        listener.bind(("127.0.0.1", wanted))
    except OSError as problem:
        if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    return listener


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # one side has gone; the other is told so below
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
        return
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
