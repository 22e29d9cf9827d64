"""The database: the only SQL of Parhelia, but for its shape (migrations.py).

SQLite in WAL mode, one connection a thread. Writes go through `transaction`, which is BEGIN IMMEDIATE: what is read in it
cannot change before it ends. Transactions are short and do nothing but SQL.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from parhelia_mcp import migrations
from parhelia_mcp.errors import Busy, Corrupted, LocalFault, NotFound, Usage
from parhelia_mcp.model import SESSION_ID, TASK_ID, Reason, Sizes, State

BUSY_S = 10.0  # how long a writer waits for another before it says so


@dataclass(frozen=True, slots=True)
class Task:
    """What was asked, as stored."""

    id: str
    created_at: str
    prompt: str | None
    command: tuple[str, ...] | None
    provider: str
    source: str | None
    repository: str | None
    idempotency_key: str | None
    request: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None  # the session whose agent handed it on


@dataclass(frozen=True, slots=True)
class Session:
    """One life of a task, as stored. Times are ISO 8601 UTC, money micro-dollars."""

    id: str
    task: str
    number: int
    latest: int
    state: State
    reason: Reason | None
    detail: str | None
    provider: str
    cpu: float
    memory_gb: float
    gpu: str | None
    region: str | None
    timeout_s: float
    max_usd: float | None
    tokens_micro: int
    rate_micro: int
    created_at: str
    started_at: str | None = None
    delivered_at: str | None = None
    ended_at: str | None = None
    deadline: str | None = None
    settled_at: str | None = None
    next_try_at: str | None = None
    exit_code: int | None = None
    kill_requested_at: str | None = None
    observed: bool = False
    observed_at: str | None = None
    observed_why: str | None = None
    last_activity: str | None = None
    last_event_at: str | None = None
    handle: Mapping[str, Any] | None = None
    spec: Mapping[str, Any] | None = None
    sources: Sequence[Sequence[str]] | None = None
    journal_offset: int = 0
    agent_session: str | None = None
    waiting_for: str | None = None
    result: Mapping[str, Any] | None = None

    @property
    def live(self) -> bool:
        return self.settled_at is None

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.cpu, self.memory_gb, self.gpu)


_JSON = frozenset({"handle", "spec", "sources", "result", "request", "command"})
_SESSION_COLUMNS = tuple(column.name for column in fields(Session))
_SESSIONS = f"SELECT {', '.join(_SESSION_COLUMNS)} FROM sessions"
_JSON_AT = tuple(at for at, name in enumerate(_SESSION_COLUMNS) if name in _JSON)
_STATE_AT, _REASON_AT, _OBSERVED_AT = (_SESSION_COLUMNS.index(name) for name in ("state", "reason", "observed"))
_TASK_COLUMNS = tuple(column.name for column in fields(Task))


class Store:
    """The database at `path`. Cheap to make; connects at the first use in each thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit: reads outside `transaction` see the newest commit."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def _connect(self) -> sqlite3.Connection:
        with self.faults():
            if not self.path.exists() or not self.path.stat().st_size:
                self._never_anew()
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return self._open()

    def create(self) -> None:
        """Make a new, empty database where there is none, whatever lies beside it."""
        with self.faults():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._local.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        db = sqlite3.connect(self._uri(writable), uri=True, timeout=BUSY_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        if writable:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            migrations.migrate(db, str(self.path))
        return db

    def _uri(self, writable: bool) -> str:
        """Where nothing can be written, SQLite needs to be told that nobody else writes either."""
        log = self.path.with_name(self.path.name + "-wal")
        alone = "" if writable else "?mode=ro" if log.exists() and log.stat().st_size else "?mode=ro&immutable=1"
        return self.path.absolute().as_uri() + alone

    def _never_anew(self) -> None:
        """Raise Corrupted where tasks lie beside a database that is missing or empty: a new one would hide them."""
        tasks = self.path.with_name("tasks")
        if any(tasks.glob("*/sessions/*/row.json")) or any(tasks.glob("*/spec.json")):
            raise Corrupted(
                "database-missing",
                f"{self.path} is missing or empty, and there are tasks in {tasks}. Nothing was changed.",
                "parhelia reconcile --rebuild",
            )

    def close(self) -> None:
        """Let go of this thread's connection."""
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            connection.close()

    def integrity(self) -> str:
        """What SQLite finds wrong with the file, or nothing. Reads all of it."""
        found = self.query("PRAGMA quick_check(5)")
        return "; ".join(row[0] for row in found if row[0] != "ok")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside commits as one, or nothing does. Raises Busy after `BUSY_S` of waiting for another writer."""
        with self.faults():
            db = self.db
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what SQLite raises into errors of ours."""
        try:
            yield
        except sqlite3.OperationalError as problem:
            text = str(problem)
            if "locked" in text or "busy" in text:
                raise Busy(
                    "database-busy",
                    f"{self.path} has been locked by another process for {BUSY_S:.0f} s; nothing was changed.",
                    "try again in a moment",
                ) from None
            if "readonly" in text or "unable to open" in text:
                raise LocalFault(
                    "database-unwritable",
                    f"{self.path} cannot be written ({text}); nothing was changed.",
                    f"chmod u+rwX {self.path.parent} {self.path}",
                ) from None
            if "full" in text:
                raise LocalFault(
                    "disk-full", f"No room on the disk of {self.path}; nothing was changed.", "parhelia checkpoint gc"
                ) from None
            raise
        except sqlite3.DatabaseError as problem:
            if isinstance(problem, sqlite3.IntegrityError):
                raise
            raise Corrupted(
                "database-corrupted",
                f"{self.path} is damaged ({problem}). Sessions and checkpoints are not touched by this.",
                "parhelia reconcile --rebuild",
            ) from None

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self.faults():
            return self.db.execute(sql, values).fetchall()

    # Tasks and sessions

    def add_task(self, db: sqlite3.Connection, task: Task) -> None:
        _insert(db, "tasks", _TASK_COLUMNS, task)

    def add_session(self, db: sqlite3.Connection, session: Session) -> None:
        """Store a session as the newest of its task."""
        db.execute("UPDATE sessions SET latest = 0 WHERE task = ?", (session.task,))
        _insert(db, "sessions", _SESSION_COLUMNS, session)

    def update(self, session: str, db: sqlite3.Connection | None = None, /, **changes: Any) -> Session:
        """Change columns of a session and return it as it now is."""
        if db is None:
            with self.transaction() as own:
                return self.update(session, own, **changes)
        names = ", ".join(f"{name} = ?" for name in changes)
        values = [_column(name, value) for name, value in changes.items()]
        db.execute(f"UPDATE sessions SET {names} WHERE id = ?", (*values, session))
        return self.session(session)

    def task(self, task: str) -> Task:
        """Raises NotFound `unknown-task`."""
        rows = self.query("SELECT * FROM tasks WHERE id = ?", task)
        if not rows:
            raise NotFound("unknown-task", f"No task {task[:80]!r}.", "parhelia list")
        return _task(rows[0])

    def session(self, session: str) -> Session:
        """Raises NotFound `unknown-session`."""
        rows = self.query(f"{_SESSIONS} WHERE id = ?", session)
        if not rows:
            raise NotFound("unknown-session", f"No session {session[:80]!r}.", "parhelia session list")
        return _session(rows[0])

    def newest(self, task: str) -> Session:
        rows = self.query(f"{_SESSIONS} WHERE task = ? ORDER BY number DESC LIMIT 1", task)
        if not rows:
            raise NotFound("unknown-task", f"No task {task[:80]!r}.", "parhelia list")
        return _session(rows[0])

    def sessions(self, task: str) -> list[Session]:
        """Every session of a task, oldest first."""
        return [_session(row) for row in self.query(f"{_SESSIONS} WHERE task = ? ORDER BY number", task)]

    def live(self, provider: str | None = None) -> list[Session]:
        """Every session that is not settled yet, oldest first."""
        where, values = ("AND provider = ?", (provider,)) if provider else ("", ())
        sql = f"{_SESSIONS} WHERE settled_at IS NULL {where} ORDER BY created_at"
        return [_session(row) for row in self.query(sql, *values)]

    def outlived(self) -> list[Session]:
        """The newest session of every task that outlived its sandbox and waits for the next to be started."""
        sql = f"{_SESSIONS} WHERE latest = 1 AND reason = 'lifetime'"
        return [_session(row) for row in self.query(f"{sql} AND kill_requested_at IS NULL AND waiting_for IS NULL")]

    def by_key(self, idempotency_key: str) -> Task | None:
        rows = self.query("SELECT * FROM tasks WHERE idempotency_key = ?", idempotency_key)
        return _task(rows[0]) if rows else None

    def find(self, text: str) -> Session:
        """The session that a person means: an exact id, or a prefix of one that is not ambiguous.

        A task's id means its newest session; `task-` may be left out; a prefix has 4 or more characters of the random
        part. Raises NotFound `unknown-id` with the nearest, Usage `bad-id` or `ambiguous-id` with the candidates.
        """
        wanted, number = _wanted(text)
        rows = self.query("SELECT id FROM tasks WHERE id >= ? AND id < ? LIMIT 6", wanted, wanted + "~")
        exact = [row["id"] for row in rows if row["id"] == wanted]
        matches = exact or [row["id"] for row in rows]
        if len(matches) > 1:
            raise Usage(
                "ambiguous-id",
                f"{text[:80]!r} may be {', '.join(matches[:5])}; nothing was done.",
                f"name one whole: {matches[0]}",
            )
        if not matches:
            raise NotFound("unknown-id", f"No task or session {text[:80]!r}.{self._near(wanted)}", "parhelia list")
        return self.session(f"{matches[0]}.{number}") if number else self.newest(matches[0])

    def _near(self, wanted: str) -> str:
        import difflib

        recent = [row["id"] for row in self.query("SELECT id FROM tasks ORDER BY created_at DESC LIMIT 200")]
        near = difflib.get_close_matches(wanted, recent, n=1, cutoff=0.7)
        return f" Did you mean {near[0]}?" if near else ""

    def page(self, *, states: Sequence[str] = (), limit: int = 20, before: str | None = None) -> list[Session]:
        """The newest session of each task, newest first, from `before` (a cursor: created_at and id) on."""
        clauses, values = ["latest = 1"], []
        if states:
            clauses.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if before:
            clauses.append("(created_at, id) < (?, ?)")
            values += before.split("/", 1)
        sql = f"{_SESSIONS} WHERE {' AND '.join(clauses)} ORDER BY created_at DESC, id DESC LIMIT ?"
        return [_session(row) for row in self.query(sql, *values, limit)]

    def changed(self, since: int | None, limit: int) -> list[tuple[int, Session]]:
        """Tasks by their newest session, each with the mark of its last change: those after `since`, oldest change first.

        Without `since` the last `limit` that changed, newest first.
        """
        where, order = ("WHERE c.seq > ?", "ASC") if since is not None else ("", "DESC")
        columns = ", ".join(f"s.{name}" for name in _SESSION_COLUMNS)
        sql = f"""SELECT {columns}, c.seq FROM changes c JOIN sessions s ON s.task = c.task AND s.latest = 1
            {where} ORDER BY c.seq {order} LIMIT ?"""
        found = self.query(sql, *((limit,) if since is None else (since, limit)))
        return [(row["seq"], _session(row[:-1])) for row in found]

    def mark(self, task: str | None = None) -> int:
        """The mark of the newest change, of all tasks or of one. It only grows."""
        if task is None:
            return self.query("SELECT coalesce(max(seq), 0) AS mark FROM changes")[0]["mark"]
        rows = self.query("SELECT seq FROM changes WHERE task = ?", task)
        return rows[0]["seq"] if rows else 0

    def changes_after(self, mark: int) -> int:
        """How many tasks have changed since."""
        return self.query("SELECT count(*) AS n FROM changes WHERE seq > ?", mark)[0]["n"]

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state, by their newest session."""
        rows = self.query("SELECT state, count(*) AS n FROM sessions WHERE latest = 1 GROUP BY state")
        return {row["state"]: row["n"] for row in rows}


def whole_id(text: str) -> None:
    """Raise Usage `prefix-refused` unless the text is a whole id: what destroys takes prefixes only from a person."""
    if not TASK_ID.fullmatch(text) and not SESSION_ID.fullmatch(text):
        raise Usage(
            "prefix-refused",
            f"{text[:80]!r} is not a whole id; without a terminal a prefix is not enough to end or delete. Nothing was done.",
            "parhelia list",
        )


def _wanted(text: str) -> tuple[str, int | None]:
    text = text.strip()
    whole = text if text.startswith("task-") else f"task-{text}"
    head, dot, tail = whole.partition(".")
    if SESSION_ID.fullmatch(whole):
        return head, int(tail)
    if (
        not TASK_ID.match(head + "0" * max(0, 13 - len(head)))
        or len(head) > 13
        or len(head) < 9
        or (dot and not tail.isdigit())
    ):
        raise Usage(
            "bad-id",
            f"{text[:80]!r} is not the id of a task or session (task-xxxxxxxx, or at least 4 of its characters).",
            "parhelia list",
        )
    return head, int(tail) if dot else None


def _column(name: str, value: Any) -> Any:
    if name in _JSON:
        return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return int(value) if isinstance(value, bool) else value


def _insert(db: sqlite3.Connection, table: str, columns: Sequence[str], row: Any) -> None:
    values = [_column(name, getattr(row, name)) for name in columns]
    db.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values)


def _task(row: sqlite3.Row) -> Task:
    values = {name: row[name] for name in _TASK_COLUMNS}
    command = None if row["command"] is None else tuple(json.loads(row["command"]))
    return Task(**{**values, "command": command, "request": json.loads(row["request"])})


def _session(row: Iterable[Any]) -> Session:
    """A row of `_SESSIONS`: its columns are the fields, in order."""
    values = list(row)
    for at in _JSON_AT:
        if values[at] is not None:
            values[at] = json.loads(values[at])
    values[_STATE_AT] = State(values[_STATE_AT])
    values[_REASON_AT] = Reason(values[_REASON_AT]) if values[_REASON_AT] else None
    values[_OBSERVED_AT] = bool(values[_OBSERVED_AT])
    return Session(*values)
