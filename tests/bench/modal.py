"""A hundred sessions in flight on Modal, seen at once: the real SDK against the loopback, and the verbs in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from parhelia_mcp import locks
from parhelia_mcp.context import Context
from parhelia_mcp.model import State
from parhelia_mcp.providers import probe
from parhelia_mcp.providers.modal import Modal, ModalSettings
from parhelia_mcp.store import Session, Task
from parhelia_mcp.verbs import list as listing
from parhelia_mcp.verbs import status
from tests.bench import Row, at_most, program
from tests.modal_loopback.client import Loopback

COUNT, ROUNDS = 100, 5
BAR_S = 1.0
BAR_MIB = 150.0


def rows(workdir: Path) -> list[Row]:
    loopback = Loopback(workdir / "modal", "--plain")
    os.environ.update(loopback.env)  # the SDK reads where to go when it is imported
    try:
        ctx = Context({**os.environ, "HOME": str(workdir), "PARHELIA_HOME": str(workdir / "state")})
        provider = Modal(ModalSettings())
        provider.list(ctx.owner, deadline=30)
        loopback.crowd(ctx.owner, COUNT)
        _have_sessions(ctx)
        held = locks.try_acquire(ctx.home / "controller.lock")  # nobody shall drive them: they run nothing
        parhelia = [str(Path(sys.executable).with_name("parhelia"))]
        try:
            with probe.listening(ctx):  # as the controller does for whoever asks
                return [
                    _memory(ctx, [*parhelia, "status"]),
                    _row("sandboxes listed with their tags", lambda: provider.list(ctx.owner, deadline=30)),
                    _row("sessions in `list`", lambda: listing.run(ctx, listing.Request(limit=COUNT))),
                    _row("sessions in `status`, Modal asked", lambda: status.run(ctx, status.Request())),
                    _row("sessions, the process `parhelia list`", program([*parhelia, "list"], env=ctx.environ)),
                    _row("sessions, the process `parhelia status`", program([*parhelia, "status"], env=ctx.environ)),
                ]
        finally:
            os.close(held)
    finally:
        loopback.stop()


def _row(what: str, look: Callable[[], object]) -> Row:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        look()
        took.append(time.perf_counter() - began)
    return at_most(f"modal: {COUNT} {what}", sorted(took)[ROUNDS // 2], "s", BAR_S)


def _memory(ctx: Context, argv: list[str]) -> Row:
    """The most memory that the process had, its libraries included."""
    nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(argv, env=ctx.environ, **nowhere)
    _, code, used = os.wait4(child.pid, 0)
    assert code == 0
    return at_most(f"modal: memory of `parhelia status` with {COUNT} sessions", used.ru_maxrss / 1024, "MiB", BAR_MIB)


def _have_sessions(ctx: Context) -> None:
    now = "2026-01-01T00:00:00.000Z"
    with ctx.store.transaction() as db:
        for number in range(COUNT):
            task = f"task-{number:08d}"
            ctx.store.add_task(db, Task(task, now, "x", None, "modal", None, None, None, {}))
            ctx.store.add_session(db, _session(task, now))


def _session(task: str, now: str) -> Session:
    made = Session(
        **{"id": f"{task}.1", "task": task, "number": 1, "latest": 1, "state": State.RUNNING, "reason": None},
        **{"detail": None, "provider": "modal", "cpu": 1, "memory_gb": 1, "gpu": None, "region": None},
        **{"timeout_s": 3600, "max_usd": None, "tokens_micro": 0, "rate_micro": 0, "created_at": now},
    )
    return replace(made, started_at=now, observed=True, observed_at=now)
