"""Many processes at once, killed at every place that matters, with clocks that jump: the ceiling holds."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

from tests.budget.proof import prove
from tests.front import Front, eventually

PRICED = {"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "1"}
PROCESSES = 64
DEADLY = (
    *("submit.before_reserve", "budget.reserve", "submit.after_reserve", "start.created", "deliver.inputs"),
    *("deliver.spec", "follow.apply", "collect.landed", "settle.charged", "budget.release", "settle.done"),
)
JUMPS = """
import os
from datetime import timedelta
from parhelia_mcp import model
_now, _by = model.now, timedelta(seconds=float(os.environ["CLOCK_IS_OFF_BY"]))
model.now = lambda: _now() + _by
"""


def jumps(front: Front) -> Path:
    """A directory that, in PYTHONPATH, moves the clock of a process by CLOCK_IS_OFF_BY seconds."""
    folder = front.root / "jumps"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(JUMPS)
    return folder


def test_as_many_are_admitted_as_the_ceiling_pays_for(front: Front, repo: Path) -> None:
    front.run("budget", "set", "10")
    argv = ("run", "-d", "--json", "--timeout-hours", "1", "--", "sleep", "300")
    started = [front.start(*argv, env=PRICED) for _ in range(PROCESSES)]
    told = [(process.communicate(timeout=90)[0], process.returncode) for process in started]
    assert Counter(code for _, code in told) == {0: 10, 125: PROCESSES - 10}
    assert all(b"over-budget" in out for out, code in told if code)
    spent, reserved = prove(front.home / "parhelia.db")
    assert spent + reserved == 10_000_000
    assert len(front.json("list", "--limit", "100")["tasks"]) == 10


def test_kills_and_jumping_clocks_neither_lose_nor_double_a_cent(front: Front, repo: Path) -> None:
    front.run("budget", "set", "3")
    clocks = str(jumps(front))
    chance = random.Random(7)
    started = []
    for number in range(2 * len(DEADLY)):
        place = DEADLY[number % len(DEADLY)]
        env = {
            **PRICED,
            "PARHELIA_FAILPOINT": f"{place}:kill9",
            "PYTHONPATH": clocks,
            "CLOCK_IS_OFF_BY": str(chance.choice([-120, -3, 0, 5, 180])),
        }
        started.append(front.start("run", "--timeout-hours", "0.5", "--", "sh", "-c", "echo $$ > n.txt", env=env))
    killed = [process.wait(timeout=90) for process in started]
    assert killed.count(-9) >= 6
    prove(front.home / "parhelia.db")
    eventually(lambda: _settled(front), within=120, what="everything to be settled")
    spent, reserved = prove(front.home / "parhelia.db")
    assert reserved == 0
    with contextlib.closing(sqlite3.connect(front.home / "parhelia.db")) as db:
        sessions = db.execute("SELECT count(*), count(settled_at) FROM sessions").fetchone()
        twice = db.execute("SELECT session FROM ledger WHERE kind = 'release' GROUP BY session HAVING count(*) > 1")
        costs = db.execute("SELECT sum(charged), max(charged - reserved) FROM accounts").fetchone()
        assert twice.fetchall() == []
    assert sessions[0] == sessions[1] > 0
    assert costs[0] == spent
    assert costs[1] <= 0


def _settled(front: Front) -> bool:
    """A user who looks now and then; killed controllers are replaced by what looks."""
    front.run("status", "--json", env=PRICED)
    return front.json("budget", "show")["reserved_usd"] == 0


def test_the_controller_a_waiting_run_and_many_looks_charge_each_minute_once(front: Front, repo: Path) -> None:
    """Everybody who looks has a clock of its own, up to four minutes fast, and charges the minutes that it sees."""
    env = {**PRICED, "PYTHONPATH": str(jumps(front))}
    began = time.monotonic()
    go = front.root / "go"
    work = ("sh", "-c", f"while [ ! -e {go} ]; do sleep 0.1; done")
    running = front.start("run", "--timeout-hours", "1", "--", *work, env={**env, "CLOCK_IS_OFF_BY": "0"})
    task = eventually(lambda: front.json("list")["tasks"], what="the task")[0]["task_id"]
    front.until(task, "running")
    for offset in (60, 120, 120, 240):
        ahead = {**env, "CLOCK_IS_OFF_BY": str(offset)}
        for process in [front.start("task", "show", task, env=ahead) for _ in range(3)]:
            process.communicate(timeout=60)
    go.touch()
    running.communicate(timeout=60)
    elapsed = time.monotonic() - began
    spent, reserved = prove(front.home / "parhelia.db")
    with contextlib.closing(sqlite3.connect(front.home / "parhelia.db")) as db:
        charges = db.execute("SELECT count(*), sum(micro_usd) FROM ledger WHERE kind = 'charge'").fetchone()
    assert charges[0] > 1
    assert (charges[1], reserved) == (spent, 0)
    assert 240 / 3600 <= spent / 1e6 <= (240 + elapsed) / 3600
