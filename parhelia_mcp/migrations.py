"""The database's shape, as steps that run once each in one transaction. Append; never edit a step that was released."""

from __future__ import annotations

import sqlite3

from parhelia_mcp.errors import LocalFault

STEPS = (
    """
    CREATE TABLE tasks (
        id TEXT PRIMARY KEY,
        created_at TEXT NOT NULL,
        prompt TEXT,
        command TEXT,                       -- JSON list
        provider TEXT NOT NULL,
        source TEXT,                        -- the directory it came from
        repository TEXT,                    -- top of its git work tree, where results land
        idempotency_key TEXT UNIQUE,
        request TEXT NOT NULL               -- JSON of the submit request
    ) STRICT;
    CREATE INDEX tasks_created ON tasks (created_at DESC);
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        task TEXT NOT NULL REFERENCES tasks (id),
        number INTEGER NOT NULL,
        latest INTEGER NOT NULL,            -- 1 for the newest session of its task
        state TEXT NOT NULL,
        reason TEXT,
        detail TEXT,
        provider TEXT NOT NULL,
        cpu REAL NOT NULL, memory_gb REAL NOT NULL, gpu TEXT, region TEXT,
        timeout_s REAL NOT NULL,
        max_usd REAL, tokens_micro INTEGER NOT NULL, rate_micro INTEGER NOT NULL,  -- rate: micro-dollars an hour
        created_at TEXT NOT NULL, started_at TEXT, delivered_at TEXT, ended_at TEXT, deadline TEXT, settled_at TEXT,
        next_try_at TEXT,
        exit_code INTEGER,
        kill_requested_at TEXT,
        observed INTEGER NOT NULL DEFAULT 0, observed_at TEXT, observed_why TEXT,
        last_activity TEXT, last_event_at TEXT,
        handle TEXT, spec TEXT, sources TEXT,   -- JSON
        journal_offset INTEGER NOT NULL DEFAULT 0,
        agent_session TEXT,
        waiting_for TEXT,
        result TEXT,                        -- JSON: ref, branch, commit, files_changed, notes
        UNIQUE (task, number)
    ) STRICT;
    CREATE INDEX sessions_live ON sessions (settled_at) WHERE settled_at IS NULL;
    CREATE INDEX sessions_newest ON sessions (latest, state, created_at DESC);
    CREATE UNIQUE INDEX sessions_one_life ON sessions (task) WHERE settled_at IS NULL;
    CREATE TABLE ledger (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        task TEXT NOT NULL,
        session TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('reserve', 'charge', 'release', 'ceiling')),
        source TEXT NOT NULL CHECK (source IN ('compute', 'tokens', '')),
        micro_usd INTEGER NOT NULL CHECK (micro_usd >= 0),
        key TEXT NOT NULL,
        UNIQUE (session, kind, key)
    ) STRICT;
    CREATE INDEX ledger_at ON ledger (kind, at);
    CREATE INDEX ledger_task ON ledger (task);
    CREATE TRIGGER ledger_is_append_only BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    CREATE TRIGGER ledger_keeps_rows BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    -- What the ledger adds up to, kept in the same transaction so that admission never scans it.
    CREATE TABLE accounts (
        session TEXT NOT NULL, source TEXT NOT NULL, task TEXT NOT NULL,
        reserved INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0, charged INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (session, source)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX accounts_task ON accounts (task);
    CREATE INDEX accounts_open ON accounts (session) WHERE reserved > released + charged;
    CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), spent INTEGER NOT NULL, reserved INTEGER NOT NULL) STRICT;
    INSERT INTO totals VALUES (1, 0, 0);
    """,
    """
    -- When each task last changed in a way that somebody who waits wants to know: the newest change has the highest seq.
    CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL UNIQUE) STRICT;
    INSERT INTO changes (task) SELECT id FROM tasks ORDER BY created_at;
    CREATE TRIGGER session_added AFTER INSERT ON sessions BEGIN
        DELETE FROM changes WHERE task = new.task;
        INSERT INTO changes (task) VALUES (new.task);
    END;
    CREATE TRIGGER session_changed AFTER UPDATE OF state, waiting_for, kill_requested_at, settled_at ON sessions
    WHEN old.state IS NOT new.state OR old.waiting_for IS NOT new.waiting_for
        OR old.kill_requested_at IS NOT new.kill_requested_at OR old.settled_at IS NOT new.settled_at
    BEGIN
        DELETE FROM changes WHERE task = new.task;
        INSERT INTO changes (task) VALUES (new.task);
    END;
    """,
    "CREATE INDEX sessions_outlived ON sessions (task) WHERE latest = 1 AND reason = 'lifetime';",
    # What the provider itself says that a session cost, beside the ledger and never part of it; NULL: nothing yet.
    "CREATE TABLE billed (session TEXT PRIMARY KEY, task TEXT NOT NULL, at TEXT NOT NULL, micro_usd INTEGER) STRICT;",
    """
    ALTER TABLE tasks ADD COLUMN parent TEXT;   -- the session whose agent handed it on
    CREATE INDEX tasks_parent ON tasks (parent) WHERE parent IS NOT NULL;
    -- What the agent of a session asked to hand on, as JSON, and what became of it; NULL: nothing yet.
    CREATE TABLE delegations (
        session TEXT NOT NULL, number INTEGER NOT NULL, request TEXT NOT NULL, answer TEXT,
        PRIMARY KEY (session, number)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- Snapshots of sandboxes that belong to checkpoints, by the whole hash of the manifest; image NULL: not taken yet.
    CREATE TABLE snapshots (
        checkpoint TEXT PRIMARY KEY, session TEXT NOT NULL, provider TEXT NOT NULL, made_at TEXT NOT NULL,
        asked INTEGER NOT NULL, image TEXT, expires_at TEXT NOT NULL, gone_at TEXT
    ) STRICT;
    CREATE INDEX snapshots_session ON snapshots (session, made_at);
    """,
)


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Bring the database to the newest shape. Safe for any number of processes at once.

    Raises LocalFault `database-newer` for one that a newer Parhelia wrote.
    """
    if _version(db, path) == len(STEPS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_version(db, path), len(STEPS)):
            for statement in _statements(STEPS[number]):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(STEPS)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection, path: str) -> int:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise LocalFault(
            "database-newer",
            f"{path} was written by a newer Parhelia (shape {version}, this one knows {len(STEPS)}). Nothing was changed.",
            "pip install --upgrade parhelia-mcp",
        )
    return version


def _statements(script: str) -> list[str]:
    """The statements of a script; executescript would commit in between."""
    statements, draft = [], ""
    for line in script.splitlines(keepends=True):
        draft += line
        if sqlite3.complete_statement(draft):
            statements.append(draft)
            draft = ""
    return statements
