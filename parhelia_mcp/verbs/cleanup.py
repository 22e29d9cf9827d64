"""What runs, or lies on the disk, without a session that needs it: say it, and with consent end it."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import SESSION_ID, moment, now
from parhelia_mcp.providers.base import Listed
from parhelia_mcp.verbs import reconcile

GRACE = timedelta(minutes=10)  # a sandbox younger than this may be one that somebody is starting right now


class Request(BaseModel, extra="forbid"):
    """Find what was left behind."""

    terminate: Annotated[bool, Field(description="End sandboxes of ours that no session needs")] = False


class Found(BaseModel):
    session_id: str
    provider: str
    created_at: str | None
    why: str
    did: str


class Result(BaseModel):
    ok: bool
    providers: list[reconcile.Asked]
    adopted: list[str]
    sandboxes: list[Found]
    folders: list[str]
    freed_bytes: int
    next: str | None


def run(ctx: Context, request: Request) -> Result:
    """Reconcile first, so that nothing is ended that only lacked its row. Only what carries our tag is ever touched."""
    reconciled = reconcile.run(ctx, reconcile.Request())
    _, running = reconcile.listed(ctx)
    found = [_handled(ctx, one, why, request.terminate) for one, why in reconcile.leftovers(ctx, running)]
    empty = _never_begun(ctx)
    freed = sum(_remove(path) for path in empty) if request.terminate else 0
    waiting = any(one.did == "nothing" for one in found) or (empty and not request.terminate)
    return Result(
        ok=reconciled.ok and all(not one.did.startswith("failed") for one in found),
        providers=reconciled.providers,
        adopted=reconciled.adopted,
        sandboxes=found,
        folders=[path.name for path in empty],
        freed_bytes=freed,
        next="parhelia cleanup --terminate" if waiting and not request.terminate else None,
    )


def exit_code(result: Result) -> int:
    return 0 if result.ok else 9


def _handled(ctx: Context, one: Listed, why: str, terminate: bool) -> Found:
    return Found(
        session_id=one.handle.name,
        provider=one.handle.provider,
        created_at=one.created_at,
        why=why,
        did=_end(ctx, one) if terminate else "nothing",
    )


def _end(ctx: Context, one: Listed) -> str:
    if one.created_at is None or moment(one.created_at) + GRACE > now():
        return f"nothing yet: it is younger than {GRACE.seconds // 60} minutes"
    try:
        ctx.provider(one.handle.provider).open(one.handle).terminate()
    except Problem as problem:
        return f"failed: {problem.message}"
    return "ended"


def _never_begun(ctx: Context) -> list[Path]:
    """Folders of tasks that were given up before anything was stored: no row, no journal, and not of just now."""
    known = {row["id"] for row in ctx.store.query("SELECT id FROM tasks")}
    before = (now() - GRACE).timestamp()
    return [
        path
        for path in sorted((ctx.home / "tasks").glob("task-*"))
        if SESSION_ID.fullmatch(f"{path.name}.1")
        and path.name not in known
        and path.stat().st_mtime < before
        and not any(path.glob("sessions/*/events.jsonl"))
        and not any(path.glob("sessions/*/row.json"))
    ]


def _remove(path: Path) -> int:
    size = sum(each.lstat().st_size for each in path.rglob("*"))
    shutil.rmtree(path)
    return size
