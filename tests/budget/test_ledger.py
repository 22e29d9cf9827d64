"""The ledger against every order of events: nothing is charged twice or lost, and the ceiling is never passed."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from parhelia_mcp import budget, failpoint
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.follow import settle
from parhelia_mcp.model import State, moment, new_task_id, session_id, timestamp
from parhelia_mcp.store import Session, Store, Task
from parhelia_mcp.verbs import budget as verb
from tests.budget.proof import prove

CEILING = 1_000
AMOUNTS = st.integers(0, 600)


class PowerCut(Exception):
    """The process dies here: nothing of the open transaction was written."""


def books(home: Path, ceiling: int = CEILING) -> Context:
    ctx = Context({"PARHELIA_HOME": str(home), "HOME": str(home)}, cwd=home)
    budget.set_ceiling(ctx, ceiling)
    return ctx


def add(ctx: Context, compute: int, tokens: int, **changes: object) -> Session:
    """A session whose worst case is reserved, as `sessions.create` does it. Raises Refused."""
    task = new_task_id()
    session = Session(
        id=session_id(task, 1), task=task, number=1, latest=1, state=State.PENDING, reason=None, detail=None,
        provider="local", cpu=1, memory_gb=0, gpu=None, region=None, timeout_s=3600, max_usd=None, tokens_micro=tokens,
        rate_micro=compute, created_at=timestamp(), **changes,
    )  # fmt: skip
    with ctx.store.transaction() as db:
        ctx.store.add_task(db, Task(task, timestamp(), "work", None, "local", None, None, None))
        ctx.store.add_session(db, session)
        budget.admit(ctx, db, session, compute, tokens)
    return session


class Books(RuleBasedStateMachine):
    """The real ledger in a real file beside a model that a child could check."""

    def __init__(self) -> None:
        super().__init__()
        self.cutting = False
        memory = Path("/dev/shm")  # a disk that answers at once: every transaction waits for it
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.ctx = books(Path(self.folder.name))
        self.ceiling = CEILING
        self.holds: dict[str, dict[str, int]] = {}  # session -> source -> reserved and not yet charged
        self.sessions: dict[str, Session] = {}
        self.charged: dict[tuple[str, str, str], int] = {}
        self.ended: set[str] = set()

    def teardown(self) -> None:
        self.ctx.store.db.close()
        self.folder.cleanup()

    def committed(self) -> int:
        return sum(self.charged.values()) + sum(sum(held.values()) for held in self.holds.values())

    @rule(compute=AMOUNTS, tokens=AMOUNTS, cut=st.booleans())
    def reserve(self, compute: int, tokens: int, cut: bool) -> None:
        fits = self.committed() + compute + tokens <= self.ceiling and self.ceiling > 0
        with suppress(PowerCut):
            try:
                with self.cut_short(cut):
                    session = add(self.ctx, compute, tokens)
            except Refused:
                assert not fits
                return
            assert fits
            self.sessions[session.id] = session
            self.holds[session.id] = {"compute": compute, "tokens": tokens}

    @rule(data=st.data(), source=st.sampled_from(["compute", "tokens"]), value=AMOUNTS, key=st.sampled_from("abc"))
    def charge(self, data: st.DataObject, source: str, value: int, key: str) -> None:
        """Also again with a key that was used: a replay after a crash."""
        if not self.sessions:
            return
        id = data.draw(st.sampled_from(list(self.sessions)))
        with suppress(PowerCut), self.cut_short(data.draw(st.booleans())), self.ctx.store.transaction() as db:
            new = budget.charge(db, self.sessions[id], source, value, key)
            if self.cutting:
                raise PowerCut
            assert new == (value > 0 and (id, source, key) not in self.charged)
            if new:
                self.charged[id, source, key] = value
                self.holds[id][source] = max(self.holds[id][source] - value, 0)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """The release; once more changes nothing."""
        if not self.sessions:
            return
        id = data.draw(st.sampled_from(list(self.sessions)))
        with suppress(PowerCut), self.cut_short(data.draw(st.booleans())), self.ctx.store.transaction() as db:
            assert budget.release(db, self.sessions[id]) == sum(self.holds[id].values())
            if self.cutting:
                raise PowerCut
            self.holds[id] = {"compute": 0, "tokens": 0}

    @rule(ceiling=st.integers(0, 2 * CEILING))
    def set(self, ceiling: int) -> None:
        budget.set_ceiling(self.ctx, ceiling)
        self.ceiling = ceiling

    @rule()
    def reopen(self) -> None:
        self.ctx.store.db.close()
        self.ctx.store = Store(self.ctx.home / "parhelia.db")

    @invariant()
    def the_books_are_right(self) -> None:
        now = budget.standing(self.ctx)
        assert now.spent == sum(self.charged.values())
        assert now.spent + now.reserved == self.committed()
        assert budget.audit(self.ctx) == []

    @contextmanager
    def cut_short(self, cut: bool) -> Iterator[None]:
        """With `cut` the power fails inside the transaction."""
        self.cutting, budget.reach = cut, _cut if cut else failpoint.reach
        try:
            yield
        finally:
            self.cutting, budget.reach = False, failpoint.reach


def _cut(name: str) -> None:
    raise PowerCut


Books.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBooks = Books.TestCase


def test_the_rows_alone_prove_it_and_are_never_changed(tmp_path: Path) -> None:
    ctx = books(tmp_path)
    first = add(ctx, 300, 300)
    with pytest.raises(Refused):
        add(ctx, 401, 0)
    with ctx.store.transaction() as db:
        budget.charge(db, first, "tokens", 100, "m1")
        budget.release(db, first)
    add(ctx, 900, 0)
    assert prove(tmp_path / "parhelia.db") == (100, 900)
    for change in ("UPDATE ledger SET micro_usd = 0", "DELETE FROM ledger"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            ctx.store.db.execute(change)


def test_an_audit_names_what_does_not_add_up(tmp_path: Path) -> None:
    ctx = books(tmp_path)
    session = add(ctx, 300, 300)
    assert budget.audit(ctx) == []
    ctx.store.db.execute("UPDATE totals SET spent = 5")
    ctx.store.db.execute("UPDATE accounts SET charged = 7 WHERE source = 'tokens'")
    ctx.store.db.execute("UPDATE sessions SET settled_at = '2026-01-01T00:00:00.000Z'")
    ctx.store.db.execute(
        "INSERT INTO ledger (at, task, session, kind, source, micro_usd, key) VALUES ('', '', 's', 'reserve', 'compute', 900, 'x')"
    )
    text = "\n".join(budget.audit(ctx))
    for what in ("admitted $0.000500 above", f"account of {session.id} (tokens)", "totals", "still holds money"):
        assert what in text


def test_a_charge_above_its_reservation_is_recorded_blocks_and_is_shown(tmp_path: Path) -> None:
    ctx = books(tmp_path)
    session = add(ctx, 0, 600)
    with ctx.store.transaction() as db:
        assert budget.charge(db, session, "tokens", 1_500, "m1")
        assert not budget.charge(db, session, "tokens", 1_500, "m1")
    assert (budget.standing(ctx).spent, budget.standing(ctx).reserved) == (1_500, 0)
    with pytest.raises(Refused):
        add(ctx, 0, 0)
    assert f"{session.id} cost" in (verb.run(ctx, verb.Request()).warning or "")
    assert budget.audit(ctx) == []


def test_a_session_is_settled_once_and_not_for_time_after_it_had_gone(tmp_path: Path) -> None:
    ctx = books(tmp_path)
    session = add(ctx, 600, 300, started_at="2026-01-01T00:00:00.000Z")
    end = (State.COMPLETED, None, 0, "done", None, "2026-01-01T00:29:57.000Z")
    first = settle.settle(ctx, session, *end, gone=True)
    assert budget.account(ctx, session=session.id) == budget.Account(300, 0)
    again = settle.settle(ctx, session, State.FAILED, None, 1, "late", None)
    assert again == ctx.store.session(session.id) == first
    assert budget.standing(ctx).remaining == CEILING - 300


def test_compute_is_charged_once_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = books(tmp_path)
    began = "2026-01-01T00:00:00.000Z"
    session = add(ctx, 600, 0, started_at=began)
    charged = []
    for minutes in (0, 5, -60, 3, 5, 30, 10, 30, 31, 100_000):
        monkeypatch.setattr(settle, "now", lambda minutes=minutes: moment(began) + timedelta(minutes=minutes))
        settle.charge_minutes(ctx, session)
        charged.append(budget.standing(ctx).spent)
    assert charged == [0, 50, 50, 50, 50, 300, 300, 300, 310, 600]
    assert budget.audit(ctx) == []


def test_what_a_session_reports_cannot_stand_in_for_its_compute(tmp_path: Path) -> None:
    ctx = books(tmp_path)
    session = add(ctx, 600, 300, started_at="2026-01-01T00:00:00.000Z")
    with ctx.store.transaction() as db:
        budget.charge(db, session, "tokens", 1, "final")
    settle.settle(ctx, session, State.COMPLETED, None, 0, "done", None)
    assert budget.standing(ctx).spent == 601
