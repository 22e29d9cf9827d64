"""Snapshots of whole sandboxes, where a provider keeps such: the ground on which a checkpoint is laid again.

A checkpoint holds the workspace and the conversation and is the truth. A snapshot adds what was installed and written
elsewhere. It is taken beside the session, after the checkpoint, and lives as long as that one is kept; what has no
snapshot any more starts from the plain image, and says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from parhelia_mcp import spec
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import moment, now, timestamp
from parhelia_mcp.store import Session

TAKE_S = 60.0  # the library's own limit is 55
PAUSE = timedelta(minutes=10)  # between two of a session that nobody asked for
AT_ONCE = 4
_taking: dict[str, threading.Thread] = {}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was kept for a checkpoint, or is to be: `image` is None until it is taken."""

    checkpoint: str  # whole hash of its manifest
    made_at: str  # of the checkpoint
    asked: bool  # a person or an agent asked for the checkpoint
    provider: str
    image: str | None
    expires_at: str
    gone_at: str | None  # when it could not be taken, or the provider said that it has it no more

    @property
    def usable(self) -> bool:
        return self.image is not None and self.gone_at is None and moment(self.expires_at) > now()


def want(ctx: Context, db: Any, session: Session, event: Mapping[str, Any]) -> None:
    """Note, in the transaction that reads a checkpoint's event, that a snapshot belongs to it.

    None of an encrypted session: a snapshot would hold in the clear what its checkpoints hide.
    """
    policy = spec.Spec.of(session.spec).checkpoint if session.spec else None
    if policy is None or policy.encrypt or ctx.provider(session.provider).properties.local_disk:
        return
    known = [str(event.get(name)) for name in ("hash", "created_at", "expires_at")]
    try:
        moment(known[1]), moment(known[2])
    except ValueError:
        return
    db.execute(
        "INSERT OR IGNORE INTO snapshots (checkpoint, session, provider, made_at, asked, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (known[0], session.id, session.provider, known[1], event.get("trigger") == "manual", known[2]),
    )


def keep(ctx: Context, session: Session) -> None:
    """Begin to take what a living session still lacks; returns at once. For the controller alone: there is one."""
    for name in [name for name, thread in _taking.items() if not thread.is_alive()]:
        del _taking[name]
    wanted = _due(ctx, session)
    if wanted is None or session.id in _taking or len(_taking) >= AT_ONCE:
        return
    _taking[session.id] = threading.Thread(target=_take, args=(ctx, session, wanted), name="snapshot", daemon=True)
    _taking[session.id].start()


def ground(ctx: Context, checkpoint: str | None) -> Snapshot | None:
    """The snapshot on which a checkpoint is laid: its own, or the last that its session had before it."""
    return next((one for one in _before(ctx, checkpoint) if one.usable), None)


def said(ctx: Context, checkpoint: str | None) -> str | None:
    """What a session that starts from the checkpoint tells of its ground; None where there never was one."""
    if found := ground(ctx, checkpoint):
        return f"what lies outside it is as of cp-{found.checkpoint[:8]} (snapshot {found.image})"
    if any(one.image for one in _before(ctx, checkpoint)):
        return "warning: its snapshot is gone [snapshot-gone]: what was installed outside the workspace is not back"
    return None


def gone(ctx: Context, image: str) -> None:
    """The provider has it no more."""
    with ctx.store.transaction() as db:
        db.execute("UPDATE snapshots SET gone_at = ? WHERE image = ?", (timestamp(), image))


def discard(ctx: Context, checkpoint: str) -> None:
    """See that no snapshot of the checkpoint is left. Raises Unreachable."""
    if (found := of(ctx, checkpoint)) and found.usable:
        ctx.provider(found.provider).discard(found.image or "")
        gone(ctx, found.image or "")


def of(ctx: Context, checkpoint: str) -> Snapshot | None:
    """The snapshot that was taken for this very checkpoint."""
    found = _rows(ctx, "checkpoint = ?", checkpoint)
    return found[0] if found and found[0].image else None


def _before(ctx: Context, checkpoint: str | None) -> list[Snapshot]:
    """Those of the checkpoint's session that are not younger than it, the newest first."""
    same = "session = (SELECT session FROM snapshots WHERE checkpoint = ?1)"
    return _rows(ctx, f"{same} AND made_at <= (SELECT made_at FROM snapshots WHERE checkpoint = ?1)", checkpoint)


def _due(ctx: Context, session: Session) -> Snapshot | None:
    rows = _rows(ctx, "session = ?", session.id)
    if not rows or rows[0].image or rows[0].gone_at:
        return None
    last = next((one for one in rows if one.image), None)
    rested = last is None or moment(rows[0].made_at) - moment(last.made_at) > PAUSE
    return rows[0] if rested or rows[0].asked else None


def _take(ctx: Context, session: Session, wanted: Snapshot) -> None:
    """Take it, or give it up: the next checkpoint asks again."""
    from parhelia_mcp import follow

    left = moment(wanted.expires_at) - now()
    column, value = "image", None
    try:
        value = follow.open_sandbox(ctx, session).snapshot(max(60, int(left.total_seconds())), deadline=TAKE_S)
    except Problem as problem:
        logging.warning("%s: no snapshot: %s", session.id, problem)
        column, value = "gone_at", timestamp()
    with ctx.store.transaction() as db:
        db.execute(f"UPDATE snapshots SET {column} = ? WHERE checkpoint = ?", (value, wanted.checkpoint))


def _rows(ctx: Context, where: str, *values: Any) -> list[Snapshot]:
    names = "checkpoint, made_at, asked, provider, image, expires_at, gone_at"
    rows = ctx.store.query(f"SELECT {names} FROM snapshots WHERE {where} ORDER BY made_at DESC", *values)
    return [Snapshot(**{**dict(row), "asked": bool(row["asked"])}) for row in rows]
