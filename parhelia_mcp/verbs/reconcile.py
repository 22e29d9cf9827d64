"""Make the database agree with what there is: providers decide what lives, folders and journals what was.

A sandbox that carries our tag and no row gets its row back. A list that failed says nothing, and one that lacks a sandbox
proves nothing: a session ends here only by being asked itself.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import budget, controller, files, follow, locks
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Corrupted, LocalFault, Problem
from parhelia_mcp.follow import adopt
from parhelia_mcp.model import dollars, micro, timestamp
from parhelia_mcp.providers.base import Listed
from parhelia_mcp.store import Session, Task

ASK_S = 20.0


class Request(BaseModel, extra="forbid"):
    """Compare the database with the providers and with what is on the disk."""

    rebuild: Annotated[bool, Field(description="Put a damaged database aside and make a new one")] = False


class Asked(BaseModel):
    name: str
    ok: bool
    what: str


class Leftover(BaseModel):
    """A sandbox of ours that runs without a session that needs it."""

    session_id: str
    provider: str
    created_at: str | None
    why: str


class Result(BaseModel):
    ok: bool
    providers: list[Asked]
    adopted: list[str]
    settled: list[str]
    leftovers: list[Leftover]
    unobserved: list[str]
    moved_aside: str | None
    next: str | None


def run(ctx: Context, request: Request) -> Result:
    """What could not be asked is in the result and changes nothing. Raises Busy for a rebuild of a database that is whole."""
    with locks.exclusive(ctx.home / "reconcile.lock", wait_s=5, what="a reconciliation"):
        money = adopt.document(ctx.home / "budget.json") or {}
        moved = _aside(ctx) if request.rebuild else None
        asked, running = listed(ctx)
        adopted = _adopt(ctx, asked, running)
        if moved:
            _restore_money(ctx, money)
        settled, unobserved = _advance(ctx)
    left = leftovers(ctx, running)
    controller.ensure(ctx)
    return Result(
        ok=all(one.ok for one in asked),
        providers=asked,
        adopted=adopted,
        settled=settled,
        leftovers=[_left(*each) for each in left],
        unobserved=unobserved,
        moved_aside=moved,
        next="parhelia cleanup --terminate" if left else None,
    )


def exit_code(result: Result) -> int:
    return 0 if result.ok else 9


def listed(ctx: Context) -> tuple[list[Asked], dict[str, Listed]]:
    """What each provider in use answered, and every running sandbox with our tag by its session."""
    asked, running = [], {}
    for name in _providers(ctx):
        try:
            found = ctx.provider(name).list(ctx.owner, deadline=ASK_S)
        except Problem as problem:
            asked.append(Asked(name=name, ok=False, what=f"not asked: {problem.message}"))
            continue
        asked.append(Asked(name=name, ok=True, what=f"{len(found)} sandboxes of ours run there"))
        running |= {one.handle.name: one for one in found if one.tags.get("owner") == ctx.owner}
    return asked, running


def leftovers(ctx: Context, running: dict[str, Listed]) -> list[tuple[Listed, str]]:
    """Running sandboxes that no living session stands behind, and why."""
    left = []
    for name, one in sorted(running.items()):
        rows = ctx.store.query("SELECT settled_at FROM sessions WHERE id = ?", name)
        if not rows:
            left.append((one, "no session of this name is known, and its files do not say what it was"))
        elif rows[0]["settled_at"]:
            left.append((one, f"its session has ended ({rows[0]['settled_at']})"))
    return left


def _left(one: Listed, why: str) -> Leftover:
    return Leftover(session_id=one.handle.name, provider=one.handle.provider, created_at=one.created_at, why=why)


def _providers(ctx: Context) -> list[str]:
    used = {row["provider"] for row in ctx.store.query("SELECT DISTINCT provider FROM sessions")}
    there = {session.provider for _, session in adopt.unknown(ctx)}
    return sorted({"local", ctx.loaded.config.provider} | used | there)


def _adopt(ctx: Context, asked: list[Asked], running: dict[str, Listed]) -> list[str]:
    """Give rows to what has none; a session whose provider could not be asked waits for the next time."""
    silent = {one.name for one in asked if not one.ok}
    rows = {session.id: (task, session) for task, session in adopt.unknown(ctx)}
    for name, one in running.items():
        if name not in rows and (found := _from_sandbox(ctx, name, one)):
            rows[name] = found
    adopted = []
    for name, (task, session) in sorted(rows.items(), key=lambda item: (item[1][1].task, item[1][1].number)):
        if session.provider in silent or any(other.live for other in ctx.store.sessions(session.task)):
            continue
        one = running.get(name)
        adopted.append(adopt.adopt(ctx, task, session, one.handle if one else None).id)
    return adopted


def _from_sandbox(ctx: Context, name: str, one: Listed) -> tuple[Task, Session] | None:
    """The rows of a sandbox that nothing here knows, from the spec in it."""
    if ctx.store.query("SELECT 1 FROM sessions WHERE id = ?", name):
        return None
    sandbox = ctx.provider(one.handle.provider).open(one.handle)
    try:
        raw: Any = adopt.parsed(sandbox.read("spec.json"))
    except Problem:
        return None
    if not raw or raw.get("session") != name:
        return None
    files.private_dir(ctx.session_dir(raw["task"], int(name.rpartition(".")[2])))
    return adopt.from_spec(ctx, raw, name, one.handle.provider, one.created_at or timestamp())


def _advance(ctx: Context) -> tuple[list[str], list[str]]:
    """Ask every living session itself; those that have ended now, and those that could not be asked."""
    settled, unobserved = [], []
    for session in ctx.store.live():
        after = follow.advance(ctx, session)
        if not after.live:
            settled.append(after.id)
        elif not after.observed and after.handle is not None:
            unobserved.append(f"{after.id}: {after.observed_why}")
    return settled, unobserved


def _aside(ctx: Context) -> str:
    """Move the damaged database away, with what SQLite keeps beside it. Raises Busy for one that is whole."""
    path = ctx.store.path
    if path.exists() and path.stat().st_size:
        try:
            whole = not ctx.store.integrity()
        except Corrupted:
            whole = False
        if whole:
            raise Busy(
                "database-whole",
                f"{path} is whole; it is not rebuilt. Nothing was changed.",
                "parhelia reconcile",
            )
    ctx.store.close()
    target = path.with_name(f"{path.name}.damaged-{timestamp().replace(':', '')}")
    try:
        for tail in ("-wal", "-shm", ""):
            part = path.with_name(path.name + tail)
            if part.exists():
                part.rename(target.with_name(target.name + tail))
        (ctx.home / "budget.json").unlink(missing_ok=True)  # its numbering begins anew too
        ctx.store.create()
    except OSError as problem:
        raise LocalFault("database-unwritable", f"{path}: {problem.strerror}.", f"chmod u+rwX {path.parent}") from None
    return str(target)


def _restore_money(ctx: Context, before: dict[str, Any]) -> None:
    """The ceiling that was in force, and what was spent for sessions that left nothing behind."""
    ceiling = micro(before.get("ceiling_usd", dollars(budget.standing(ctx, everywhere=True).ceiling)))
    if ceiling != budget.standing(ctx, everywhere=True).ceiling:
        budget.set_ceiling(ctx, ceiling)
    with ctx.store.transaction() as db:
        budget.carry(db, micro(before.get("spent_usd", 0)) - budget.standing(ctx, db).spent)
    budget.publish(ctx)
