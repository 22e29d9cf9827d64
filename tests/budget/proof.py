"""The invariant of the ledger, computed from its rows by SQL of its own: no code of the package is asked."""

from __future__ import annotations

import sqlite3
from pathlib import Path

AT_EVERY_ROW = """
WITH flow AS (
    SELECT seq, kind, session, source,
        CASE kind WHEN 'charge' THEN micro_usd ELSE 0 END AS charged,
        CASE kind WHEN 'reserve' THEN micro_usd WHEN 'release' THEN -micro_usd ELSE 0 END AS held
    FROM ledger WHERE kind <> 'ceiling'
), steps AS (
    SELECT seq, kind, session, source, charged,
        sum(held - charged) OVER (PARTITION BY session, source ORDER BY seq) AS open_after,
        sum(held - charged) OVER (PARTITION BY session, source ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS open_before
    FROM flow
), sums AS (
    SELECT seq, kind, sum(charged) OVER (ORDER BY seq) AS spent,
        sum(max(open_after, 0) - max(coalesce(open_before, 0), 0)) OVER (ORDER BY seq) AS reserved
    FROM steps
)
SELECT seq, kind, spent, reserved,
    (SELECT micro_usd FROM ledger c WHERE c.kind = 'ceiling' AND c.seq < sums.seq ORDER BY c.seq DESC LIMIT 1) AS ceiling
FROM sums ORDER BY seq
"""


def prove(database: Path) -> tuple[int, int]:
    """Spent and reserved in micro-dollars, after every row was seen to keep to the ceiling in force then."""
    db = sqlite3.connect(database)
    try:
        spent = reserved = 0
        for seq, kind, spent, reserved, ceiling in db.execute(AT_EVERY_ROW):
            assert reserved >= 0, seq
            assert kind != "reserve" or spent + reserved <= ceiling, (seq, spent, reserved, ceiling)
        assert db.execute("SELECT spent, reserved FROM totals").fetchone() == (spent, reserved)
        return spent, reserved
    finally:
        db.close()
