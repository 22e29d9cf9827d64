"""Storms: seeded faults at random places of submit, kill, resume and recover, then the machine heals, and all must add up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from parhelia_mcp.checkpoint import store as checkpoints
from parhelia_mcp.checkpoint.verify import verify
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.model import moment
from parhelia_mcp.providers.local import Local
from parhelia_mcp.verbs import doctor, reconcile, recover
from tests.front import Front

PLACES = (
    *("submit.before_reserve", "submit.after_reserve", "start.created", "deliver.inputs", "deliver.spec"),
    *("follow.apply", "collect.landed", "settle.charged", "settle.done", "budget.reserve", "budget.release"),
    *("checkpoint.manifest", "checkpoint.published", "checkpoint.pack-rename", "recover.ended", "recover.planned"),
)
ACTIONS = ("kill9", "raise", "enospc", "sleep=0.3")
HEALED_S = 60


def fault(dice: random.Random) -> dict[str, str]:
    return {"PARHELIA_FAILPOINT": f"{dice.choice(PLACES)}@{dice.randint(1, 2)}:{dice.choice(ACTIONS)}"}


def storm(front: Front, seed: int) -> None:
    dice = random.Random(seed)
    front.env["PARHELIA_PRICES_LOCAL_USD_PER_HOUR"] = "1.0"
    sizes = ("--timeout-hours", "0.1", "--max-usd", "1")
    front.run("run", "-d", *sizes, "--", "sh", "-c", "echo x >> x; sleep 0.2", code=None, env=fault(dice))
    with sqlite3.connect(front.home / "parhelia.db") as db:
        tasks = [row[0] for row in db.execute("SELECT id FROM tasks")]
    for _ in range(2):
        act(front, dice, tasks)
    heal(front, tasks)
    adds_up(front)


def act(front: Front, dice: random.Random, tasks: list[str]) -> None:
    what = dice.choice(("kill", "resume", "recover", "controller", "wait"))
    task = tasks[0] if tasks else "task-00000000"
    if what == "kill":
        front.run("session", "kill", task, code=None, env=fault(dice))
    elif what == "resume":
        front.run("resume", task, code=None, env=fault(dice))
    elif what == "recover":
        action = dice.choice(("resume", "restart", "kill"))
        front.run("recover", task, "--action", action, code=None, env=fault(dice))
    elif what == "controller":
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((front.home / "controller.lock").read_text()), signal.SIGKILL)
    else:
        time.sleep(dice.random() / 2)


def heal(front: Front, tasks: list[str]) -> None:
    """What a person does afterwards, until nothing lives."""
    ctx = Context(front.env, front.cwd)
    for task in tasks:
        with contextlib.suppress(Refused):  # killed, or a crash loop
            recover.run(ctx, recover.Request(id=task), agreed=True)
    assert [one for one in doctor.run(ctx, doctor.Request()).checks if one.state == "broken"] == []
    deadline = time.monotonic() + HEALED_S
    while ctx.store.live() and time.monotonic() < deadline:
        assert reconcile.run(ctx, reconcile.Request()).ok
        time.sleep(0.02)
    assert ctx.store.live() == [], "stuck"


def rows(front: Front, sql: str) -> list[tuple]:
    with sqlite3.connect(front.home / "parhelia.db") as db:
        return db.execute(sql).fetchall()


def adds_up(front: Front) -> None:
    ceiling, spent, held = 25_000_000, 0, defaultdict(int)
    charged: dict[str, int] = defaultdict(int)
    for session, kind, source, value in rows(front, "SELECT session, kind, source, micro_usd FROM ledger ORDER BY seq"):
        account = (session, source)
        if kind == "reserve":
            held[account] += value
        elif kind == "release":
            held[account] -= value
        elif kind == "charge":
            spent, charged[session] = spent + value, charged[session] + value
            held[account] = max(0, held[account] - value)
        assert spent + sum(held.values()) <= ceiling
        assert min(held.values(), default=0) >= 0
    assert sum(held.values()) == 0
    assert rows(front, "SELECT spent, reserved FROM totals") == [(spent, 0)]
    for session, value in charged.items():
        began, ended = rows(front, f"SELECT started_at, settled_at FROM sessions WHERE id = '{session}'")[0]
        assert value <= seconds(began, ended) / 3600 * 1_000_000 + 1, "charged for more time than there was"
    owner = (front.home / "owner").read_text().strip() if (front.home / "owner").exists() else ""
    assert Local(front.home, front.env).list(owner) == [], "a sandbox that nobody knows"
    for folder in front.home.glob("tasks/*/checkpoints"):
        kept = checkpoints.Store(folder)
        assert [verify(kept, one) for one in checkpoints.list_all(kept) if verify(kept, one)] == []


def seconds(began: str, ended: str) -> float:
    return (moment(ended) - moment(began)).total_seconds()


@pytest.mark.parametrize("seed", range(25))
def test_after_a_storm_everything_adds_up(users: Callable[..., Front], seed: int) -> None:
    front = users(f"user{seed}")
    front.repository()
    storm(front, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_after_many_storms_everything_adds_up(users: Callable[..., Front], seed: int, tmp_path: Path) -> None:
    front = users(f"user{seed}")
    front.repository()
    storm(front, seed)
