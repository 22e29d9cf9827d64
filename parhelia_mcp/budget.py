"""The ledger: money reserved, charged and released, and the one gate that admits spending.

Rows are only ever added. `accounts` and `totals` hold their sums and change in the same transaction, so that admission
costs the same with one session as with a hundred thousand. At every commit spent + reserved <= ceiling, unless the newest
row lowered the ceiling or a charge from outside went above its reservation; both block further admission and are shown.
"""

from __future__ import annotations

import math
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parhelia_mcp import files
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused, Usage
from parhelia_mcp.failpoint import reach
from parhelia_mcp.model import dollars, micro, timestamp
from parhelia_mcp.store import Session

if TYPE_CHECKING:
    from parhelia_mcp.config import Config

MOST = 10**15  # a billion dollars in micro-dollars: no sum of ours comes near 2**63


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger adds up to now, in micro-dollars."""

    ceiling: int
    spent: int
    reserved: int
    seq: int

    @property
    def remaining(self) -> int:
        return self.ceiling - self.spent - self.reserved


def amount(text: str, example: str = "parhelia budget set 50") -> int:
    """A person's dollars as micro-dollars. Raises Usage `bad-amount` for anything but a plain number >= 0."""
    plain = text.strip()
    try:
        value = float(plain) if plain and set(plain) <= set("0123456789.eE+-") else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or value * 1e6 > MOST or (value > 0 and not micro(value)):
        raise Usage(
            "bad-amount",
            f"{text[:80]!r} is not an amount of dollars from 0 to {MOST // 10**6:,}; nothing was changed.",
            example,
        )
    return micro(value)


def standing(ctx: Context, db: sqlite3.Connection | None = None, *, everywhere: bool = False) -> Standing:
    """Spent, reserved and the ceiling in force here; `everywhere`: without what this project's file lowers it to."""
    with ctx.store.faults():
        db = db or ctx.store.db
        totals = db.execute("SELECT spent, reserved FROM totals").fetchone()
        seq = db.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()[0]
        ceiling = _ceiling(db, ctx.loaded.user)
    lowered = None if everywhere else project_ceiling(ctx)
    return Standing(ceiling if lowered is None else min(ceiling, lowered), totals["spent"], totals["reserved"], seq)


def project_ceiling(ctx: Context) -> int | None:
    """What this project's file lowers the ceiling to for tasks that start in it, or None."""
    here, user = ctx.loaded.config.budget.ceiling_usd, ctx.loaded.user.budget.ceiling_usd
    return micro(here) if here < user else None


def _ceiling(db: sqlite3.Connection, user: Config) -> int:
    """The newest ceiling that somebody set, else the user's configured one."""
    row = db.execute(
        "SELECT micro_usd FROM ledger WHERE kind = 'ceiling' AND key LIKE 'set:%' ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return micro(user.budget.ceiling_usd) if row is None else row["micro_usd"]


def _record_ceiling(ctx: Context, db: sqlite3.Connection) -> None:
    """Make the ledger's newest ceiling row the ceiling in force, so that its rows alone prove the invariant."""
    ceiling = _ceiling(db, ctx.loaded.user)
    newest = db.execute("SELECT micro_usd FROM ledger WHERE kind = 'ceiling' ORDER BY seq DESC LIMIT 1").fetchone()
    if newest is None or newest["micro_usd"] != ceiling:
        _row(db, "", "", "ceiling", "", ceiling, f"config:{os.urandom(8).hex()}")


def set_ceiling(ctx: Context, ceiling: int) -> tuple[Standing, Standing]:
    """Store a new ceiling; the standing before and after. Lowering below what is spent is valid and blocks all."""
    with ctx.store.transaction() as db:
        before = standing(ctx, db, everywhere=True)
        _row(db, "", "", "ceiling", "", ceiling, f"set:{os.urandom(8).hex()}")
        after = standing(ctx, db, everywhere=True)
    publish(ctx)
    return before, after


def admit(
    ctx: Context, db: sqlite3.Connection, session: Session, compute: int, tokens: int, *, agreed: int = 0
) -> Standing:
    """Reserve a session's worst case inside the caller's transaction: the only gate.

    `agreed` is what a person allowed the ceiling to rise by for this session; it rises by what is missing, and not at
    all where that has become more. Raises Refused `over-budget` with the numbers; then nothing is reserved or raised.
    """
    _record_ceiling(ctx, db)
    need = compute + tokens
    before = standing(ctx, db, everywhere=True)
    if 0 < need - before.remaining <= agreed:
        _row(db, "", "", "ceiling", "", before.ceiling + need - before.remaining, f"set:{os.urandom(8).hex()}")
    check(ctx, db, standing(ctx, db), need)
    for source, value in (("compute", compute), ("tokens", tokens)):
        if value:
            _row(db, session.task, session.id, "reserve", source, value, source)
            db.execute(
                "INSERT INTO accounts (session, source, task, reserved) VALUES (?, ?, ?, ?)",
                (session.id, source, session.task, value),
            )
    db.execute("UPDATE totals SET reserved = reserved + ?", (need,))
    reach("budget.reserve")
    return standing(ctx, db)


def check(ctx: Context, db: sqlite3.Connection, before: Standing, need: int) -> None:
    """Raise Refused `over-budget` or `over-daily-budget` where `need` does not fit."""
    project = project_ceiling(ctx)
    by_project = project is not None and project == before.ceiling
    whose = "this project's ceiling of" if by_project else "the ceiling of"
    if before.ceiling == 0:
        raise Refused(
            "over-budget", f"{whose.capitalize()} $0 blocks everything; nothing was reserved.", _more(25, by_project)
        )
    if before.spent > before.ceiling or need > before.remaining:
        short = dollars(max(need - before.remaining, 0))
        raise Refused(
            "over-budget",
            f"This needs up to ${dollars(need):.2f} and ${max(dollars(before.remaining), 0):.2f} is left under {whose} ${dollars(before.ceiling):.2f} "
            f"(${dollars(before.spent):.2f} spent, ${dollars(before.reserved):.2f} reserved by others). Nothing was reserved.",
            _more(math.ceil(dollars(before.ceiling) + short), by_project),
        )
    daily = ctx.loaded.config.budget.per_day_usd
    if daily is None:
        return
    today = db.execute(
        "SELECT coalesce(sum(micro_usd), 0) FROM ledger WHERE kind = 'charge' AND at >= ?", (timestamp()[:10],)
    ).fetchone()[0]
    if today + before.reserved + need > micro(daily):
        raise Refused(
            "over-daily-budget",
            f"This needs up to ${dollars(need):.2f}; today ${dollars(today):.2f} of ${daily:.2f} is spent and ${dollars(before.reserved):.2f} reserved. Nothing was reserved.",
            "wait until tomorrow (UTC), or raise per_day_usd in [budget]",
        )


def _more(usd: int, by_project: bool) -> str:
    """The way to a higher ceiling."""
    return f"ceiling_usd = {usd} in the project's parhelia.toml" if by_project else f"parhelia budget set {usd}"


def warning(ctx: Context, now: Standing) -> str | None:
    """What a person should know before the ceiling stops anything."""
    used = now.spent + now.reserved
    if now.ceiling == 0:
        return "a ceiling of $0 blocks everything: nothing new starts"
    if used > now.ceiling:
        return f"${dollars(used):.2f} is spent or reserved, more than the ceiling of ${dollars(now.ceiling):.2f}: nothing new starts"
    if used >= ctx.loaded.config.budget.warning_threshold * now.ceiling:
        return f"{100 * used / now.ceiling:.0f} % of the ceiling is spent or reserved"
    return None


def charge(db: sqlite3.Connection, session: Session, source: str, value: int, key: str) -> bool:
    """Record money spent, once per (session, key): False where it was recorded already.

    It comes out of the session's reservation; what is above that is spent all the same, and blocks further admission
    through the ceiling. Keys of one source never meet those of the other: what a session reports cannot stand in for
    what its compute costs.
    """
    if value <= 0 or not _row(db, session.task, session.id, "charge", source, value, f"{source}:{key}"):
        return False
    open_before = _open(db, session.id, source)
    db.execute(
        "INSERT INTO accounts (session, source, task, charged) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET charged = charged + excluded.charged",
        (session.id, source, session.task, value),
    )
    db.execute("UPDATE totals SET spent = spent + ?, reserved = reserved - ?", (value, min(value, open_before)))
    return True


def carry(db: sqlite3.Connection, value: int) -> None:
    """Record money that was spent for sessions of which nothing else is left."""
    if value > 0:
        _row(db, "", "", "charge", "", value, f"carried:{os.urandom(8).hex()}")
        db.execute("UPDATE totals SET spent = spent + ?", (value,))


def release(db: sqlite3.Connection, session: Session) -> int:
    """Give back what a session no longer needs: the second half of settlement. Returns it in micro-dollars."""
    total = 0
    for source in ("compute", "tokens"):
        left = _open(db, session.id, source)
        if left and _row(db, session.task, session.id, "release", source, left, source):
            db.execute(
                "UPDATE accounts SET released = released + ? WHERE session = ? AND source = ?",
                (left, session.id, source),
            )
            db.execute("UPDATE totals SET reserved = reserved - ?", (left,))
            total += left
    reach("budget.release")
    return total


def hand_on(db: sqlite3.Connection, session: Session, value: int, task: str) -> None:
    """Let go of part of what a session holds for tokens, for `task` to reserve in the same transaction: a transfer.

    Raises Refused `over-task-limit` where the session holds less, as one that has ended does.
    """
    held = _open(db, session.id, "tokens")
    if value > held:
        raise Refused(
            "over-task-limit",
            f"${dollars(value):.2f} was asked for and {session.id} holds ${dollars(held):.2f} for tokens. Nothing was started.",
            "ask for less",
        )
    if _row(db, session.task, session.id, "release", "tokens", value, f"handed on:{task}"):
        db.execute(
            "UPDATE accounts SET released = released + ? WHERE session = ? AND source = 'tokens'", (value, session.id)
        )
        db.execute("UPDATE totals SET reserved = reserved - ?", (value,))


def _open(db: sqlite3.Connection, session: str, source: str) -> int:
    row = db.execute(
        "SELECT reserved - released - charged FROM accounts WHERE session = ? AND source = ?", (session, source)
    ).fetchone()
    return max(row[0], 0) if row else 0


def _row(db: sqlite3.Connection, task: str, session: str, kind: str, source: str, value: int, key: str) -> bool:
    done = db.execute(
        "INSERT INTO ledger (at, task, session, kind, source, micro_usd, key) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (timestamp(), task, session, kind, source, value, key),
    )
    return done.rowcount == 1


@dataclass(frozen=True, slots=True)
class Account:
    """What one session or task spent and still holds, in micro-dollars."""

    spent: int
    reserved: int


def account(ctx: Context, *, session: str | None = None, task: str | None = None) -> Account:
    column, value = ("session", session) if session else ("task", task)
    row = ctx.store.query(
        f"SELECT coalesce(sum(charged), 0) AS spent, coalesce(sum(max(reserved - released - charged, 0)), 0) AS held FROM accounts WHERE {column} = ?",
        value,
    )[0]
    return Account(row["spent"], row["held"])


def overcharged(ctx: Context) -> list[str]:
    """The sessions that cost more than was reserved for them, which can only come from outside, in a sentence each."""
    rows = ctx.store.query(
        "SELECT session, source, charged, reserved FROM accounts WHERE charged > reserved ORDER BY session, source LIMIT 5"
    )
    return [
        f"{row['session']} cost ${dollars(row['charged']):.2f} of {row['source']}, ${dollars(row['reserved']):.2f} was reserved"
        for row in rows
    ]


def audit(ctx: Context) -> list[str]:
    """What is wrong with the books, in sentences; nothing is right. Adds up every row of the ledger anew.

    Admission was right when after every reservation spent + reserved was within the newest ceiling row; sums are right
    when they equal the rows; a session is right when what it holds ends with it.
    """
    problems, ceiling, spent, reserved = [], 0, 0, 0
    held: dict[tuple[str, str], dict[str, int]] = {}
    for row in ctx.store.query("SELECT * FROM ledger ORDER BY seq"):
        kind, value = row["kind"], row["micro_usd"]
        if kind == "ceiling":
            ceiling = value
            continue
        sums = held.setdefault((row["session"], row["source"]), {"reserve": 0, "release": 0, "charge": 0})
        before = _held(sums)
        sums[kind] += value
        reserved += _held(sums) - before
        spent += value if kind == "charge" else 0
        if kind == "reserve" and spent + reserved > ceiling:
            over = dollars(spent + reserved - ceiling)
            problems.append(f"ledger row {row['seq']}: {row['session']} was admitted ${over:.6f} above the ceiling")
    kept = {
        (row["session"], row["source"]): {name: row[f"{name}d"] for name in ("reserve", "release", "charge")}
        for row in ctx.store.query("SELECT * FROM accounts")
    }
    for key in sorted(kept.keys() | held.keys()):
        if kept.get(key) != held.get(key):
            problems.append(f"the account of {key[0]} ({key[1]}) is {kept.get(key)}, its rows say {held.get(key)}")
    totals = ctx.store.query("SELECT spent, reserved FROM totals")[0]
    if (totals["spent"], totals["reserved"]) != (spent, reserved):
        problems.append(f"the totals are {tuple(totals)}, the rows say {(spent, reserved)}")
    ended = "SELECT id FROM sessions JOIN accounts ON session = id WHERE settled_at IS NOT NULL AND reserved > released + charged"
    problems += [f"{row['id']} has ended and still holds money" for row in ctx.store.query(ended)]
    return problems


def _held(sums: dict[str, int]) -> int:
    return max(sums["reserve"] - sums["release"] - sums["charge"], 0)


def publish(ctx: Context) -> None:
    """Write `budget.json` for the hooks, after a commit. Advisory: an older writer never replaces a newer one's numbers."""
    from parhelia_mcp import billing, locks, prices

    now = standing(ctx, everywhere=True)
    path = ctx.home / "budget.json"
    with locks.exclusive(ctx.home / "budget.lock", wait_s=2.0, what="budget.json"):
        held = files.read_json(path) if path.exists() else None
        if isinstance(held, dict) and held.get("seq", -1) > now.seq:
            return
        files.replace_json(
            path,
            {
                "seq": now.seq,
                "ceiling_usd": dollars(now.ceiling),
                "spent_usd": dollars(now.spent),
                "reserved_usd": dollars(now.reserved),
                "per_task_usd": ctx.loaded.user.budget.per_task_usd,
                "warning_threshold": ctx.loaded.user.budget.warning_threshold,
                "rates": prices.rates(billing.prices_for(ctx, "modal", ctx.loaded.user.prices)),
            },
        )
