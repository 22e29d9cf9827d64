"""The process that drives live sessions while nobody looks: a loop around `follow.advance`, no knowledge of its own.

At most one runs for each PARHELIA_HOME. Any command that finds live sessions and no controller starts one, detached. It ends
when nothing lives; killing it loses nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import Any

from parhelia_mcp import locks
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.store import Session

FASTEST_S, SLOWEST_S = 0.1, 1.0  # between two rounds: short while things happen, long while they do not
AT_START = (
    "PATH",
    "HOME",
    "LANG",
    "LC_",
    "TMPDIR",
    "PYTHON",
    "PARHELIA_",
    "XDG_",
    "LD_LIBRARY_PATH",
)  # no key among them
WORKERS = 16  # sessions advanced at once; only a remote provider makes one wait for another


def ensure(ctx: Context) -> bool:
    """Start a controller unless one runs or nothing lives. True where one was started."""
    if locks.held(ctx.home / "controller.lock") or not (ctx.store.live() or ctx.store.outlived()):
        return False
    import subprocess

    environ = {**ctx.environ, "PARHELIA_HOME": str(ctx.home)}
    with (ctx.home / "controller.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "parhelia_mcp.controller"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={name: value for name, value in environ.items() if name.startswith(AT_START)},
            cwd="/",
            start_new_session=True,
        )
    with suppress(BrokenPipeError), process.stdin:  # it has died: the next command starts another
        process.stdin.write(json.dumps(environ).encode())
    return True


def main() -> None:
    """Hold the lock, drive, let go; look again, because a session may have come between the last look and the letting go.

    The environment comes over standard input: what a process is started with, an agent of this user could read in /proc.
    """
    os.environ.update(json.loads(sys.stdin.buffer.read() or b"{}"))
    from parhelia_mcp import processes
    from parhelia_mcp.providers import probe

    processes.hide_memory()
    ctx = Context()
    import logging

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    while ctx.store.live() or ctx.store.outlived():
        lock = locks.try_acquire(ctx.home / "controller.lock")
        if lock is None:
            return
        try:
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
            with probe.listening(ctx):
                _drive(ctx)
        finally:
            os.close(lock)


def _drive(ctx: Context) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pause = FASTEST_S
    told: dict[str, Any] = {}  # by session: what its agent knows of what it handed on
    with ThreadPoolExecutor(WORKERS) as pool:
        while work := [*ctx.store.outlived(), *ctx.store.live()]:
            moved = list(pool.map(lambda session: _advance(ctx, session, told), work))
            pause = FASTEST_S if any(moved) else min(SLOWEST_S, pause * 1.2)
            time.sleep(pause)


def _advance(ctx: Context, session: Session, told: dict[str, Any]) -> bool:
    """Whether anything changed."""
    import logging

    # not at the top: `ensure` is called by commands that never drive
    from parhelia_mcp import delegation, follow, lifetime, snapshots

    try:
        after = (follow.advance if session.live else lifetime.carry_on)(ctx, session)
        delegation.serve(ctx, after, told)
        if after.live and after.handle:
            snapshots.keep(ctx, after)
        return after != session
    except Problem as problem:
        logging.warning("%s: %s", session.id, problem)
    except Exception:  # one session's fault must not stop the others
        logging.exception("%s", session.id)
    return False


if __name__ == "__main__":
    main()
