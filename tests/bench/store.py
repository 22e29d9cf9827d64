"""A hundred thousand tasks: the filtered list in process, and the tail of a log of 1 GB."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from parhelia_mcp import logbook
from parhelia_mcp.model import new_task_id
from parhelia_mcp.store import Store
from tests.bench import Row, at_most, medians
from tests.front import Front

TASKS = 100_000
PROCESSES = 64
TIMED = """
import os, time
from contextlib import contextmanager
from parhelia_mcp.store import Store

_transaction = Store.transaction


@contextmanager
def transaction(self):
    with _transaction(self) as db:  # entered when BEGIN IMMEDIATE has the lock, left when COMMIT has let it go
        began = time.perf_counter()
        yield db
        db.execute("COMMIT")
        held = time.perf_counter() - began
        db.execute("BEGIN")
    with open(os.environ["TIMES"] + f"/{os.getpid()}.held", "a") as times:
        times.write(f"{held}\\n")


Store.transaction = transaction
"""  # BEGIN to COMMIT inside every process; the empty transaction after it takes no lock


def rows(workdir: Path) -> list[Row]:
    store = Store(workdir / "many.db")
    _fill(store)
    log = _large_log(workdir / "session")
    took = medians(
        {
            "list": lambda: store.page(states=("running",), limit=50),
            "tail": lambda: list(logbook.forward(log, logbook.tail(log, 100))),
        },
        50,
    )
    return [
        at_most(f"filtered list of {TASKS} tasks, in process", 1000 * took["list"], "ms", 1),
        at_most("last 100 lines of a 1 GB log, in process", 1000 * took["tail"], "ms", 5),
        *_submitting(workdir / "front"),
    ]


def _fill(store: Store) -> None:
    with store.transaction() as db:
        for number in range(TASKS):
            task, at = (
                new_task_id(),
                f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000Z",
            )
            db.execute("INSERT INTO tasks (id, created_at, provider, request) VALUES (?, ?, 'local', '{}')", (task, at))
            state = "running" if number % 100 == 0 else "completed"
            db.execute(
                "INSERT INTO sessions (id, task, number, latest, state, provider, cpu, memory_gb, timeout_s, tokens_micro, rate_micro, created_at, settled_at)"
                " VALUES (?, ?, 1, 1, ?, 'local', 1, 0, 60, 0, 0, ?, ?)",
                (f"{task}.1", task, state, at, at),
            )


def _large_log(folder: Path) -> Path:
    folder.mkdir()
    block = b"".join(
        b"line %07d of a long log that nobody reads whole, but somebody wants the end of\n" % n for n in range(12_500)
    )
    with (folder / "stdout.log").open("wb") as log:
        while log.tell() < 1 << 30:
            log.write(block)
        size = log.tell()
    event = {
        "v": 1,
        "seq": 1,
        "at": "2026-01-01T00:00:00.000Z",
        "kind": "result",
        "text": "completed",
        "out": [size, 0],
    }
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    return folder


def _submitting(root: Path) -> list[Row]:
    """64 processes submit at once against a ceiling that pays for ten, and each says how long it held the write lock."""
    timing = root / "timing"
    timing.mkdir(parents=True)
    (timing / "sitecustomize.py").write_text(TIMED)
    front = Front(root, PARHELIA_PRICES_LOCAL_USD_PER_HOUR="1", PYTHONPATH=str(timing), TIMES=str(timing))
    try:
        front.repository()
        front.run("budget", "set", "10")
        for times in timing.glob("*.held"):
            times.unlink()
        started = [front.start("run", "-d", "--timeout-hours", "1", "--", "sleep", "120") for _ in range(PROCESSES)]
        for process in started:
            process.communicate(timeout=300)
        admitted = sum(process.returncode == 0 for process in started)
        held = [float(text) for times in timing.glob("*.held") for text in times.read_text().split()]
    finally:
        front.close()
    return [
        Row(
            f"{PROCESSES} submits at once, admitted beyond what $10 pays for",
            max(0, admitted - 10),
            "",
            0,
            admitted <= 10,
        ),
        at_most("median time that one of them held the write lock", 1000 * statistics.median(held), "ms", 50),
        at_most("longest of these times, with the machine's own stalls", 1000 * max(held), "ms"),
    ]
