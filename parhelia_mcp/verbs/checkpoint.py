"""Checkpoints: take one, look at them, compare, verify, remove. None of it needs a living session but taking one."""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import controller, follow, snapshots, task_checkpoints
from parhelia_mcp.checkpoint import compare, retention, trees, verify
from parhelia_mcp.checkpoint import store as stores
from parhelia_mcp.checkpoint.format import FILE
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.store import Store
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Corrupted, LocalFault, Problem, Refused, Usage
from parhelia_mcp.model import Doing, moment, now
from parhelia_mcp.plain import clean
from parhelia_mcp.providers.base import Sandbox

TAKE_S = 900.0
LOOK_S = 0.5  # between two looks at how far it has come
MOST_LISTED = 50  # paths of skipped and changed files in one answer
MOST_SCREEN = 32 << 10
TROUBLES: dict[str, type[Problem]] = {  # what a runner's refusal is to the one who asked
    **dict.fromkeys(("disk-full", "disk-fault", "not-writable"), LocalFault),
    **dict.fromkeys(("busy", "not-running"), Busy),
    "damaged-checkpoint": Corrupted,
}
SENSITIVE = re.compile(
    r"(^|/)(\.env(\.[^/]*)?|[^/]*\.(pem|key|p12|pfx|keystore|jks)|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.npmrc|\.pypirc|\.pgpass"
    r"|\.git-credentials|[^/]*credentials[^/]*|[^/]*secrets?\.(ya?ml|json|toml|env))$",
    re.IGNORECASE,
)


class Row(BaseModel):
    """One checkpoint."""

    checkpoint_id: str
    task_id: str | None
    session_id: str | None
    trigger: str
    created_at: str
    consistent: bool
    pending_tool: str | None
    files: int
    bytes: int
    stored_bytes: int
    partial: bool
    skipped: list[dict[str, str]]
    changed: list[str]
    expires_at: str | None
    kept_longer: bool = False  # than periodic ones, because of why it was taken
    pinned: bool = False
    parent: str | None = None
    turns: int = 0
    spent_usd: float = 0


class CreateRequest(BaseModel, extra="forbid"):
    """Keep a living session as it is now."""

    id: Annotated[str, Field(description="Task or session")]
    note: str | None = None


class ListRequest(BaseModel, extra="forbid"):
    """List checkpoints, newest first."""

    session: str | None = None
    older_than: str | None = None


class ListResult(BaseModel):
    checkpoints: list[Row]
    damaged: list[str] = []


class OneRequest(BaseModel, extra="forbid"):
    """One checkpoint by its id."""

    id: str


class Conversation(BaseModel):
    """The transcript in a checkpoint; `whole` is false where its last line was being written."""

    path: str
    lines: int
    whole: bool


class Snapshot(BaseModel):
    """What was kept of the whole sandbox beside a checkpoint, as its provider calls it."""

    provider: str
    image: str
    expires_at: str


class ShowResult(Row):
    """One checkpoint with its whole manifest."""

    manifest: dict[str, Any]
    snapshot: Snapshot | None = None
    conversation: Conversation | None = None
    tasks: int = 0  # entries of the agent's task list
    screen: str | None = None
    sensitive: list[str] = []  # files that look like secrets, kept all the same
    locked: str | None = None  # why what is inside could not be read


class DiffRequest(BaseModel, extra="forbid"):
    """Compare two checkpoints, or one path in both."""

    a: str
    b: str
    path: str | None = None


class DiffResult(BaseModel):
    a: str
    b: str
    added: list[str]
    changed: list[str]
    removed: list[str]
    sizes: dict[str, tuple[int, int]] = {}
    text: str | None = None


class VerifyResult(BaseModel):
    checkpoint_id: str
    ok: bool
    problems: list[str]


class DeleteRequest(BaseModel, extra="forbid"):
    """Remove checkpoints for good."""

    ids: list[str] = []
    older_than: str | None = None


class Removed(BaseModel):
    removed: list[str]
    packs: int
    bytes: int


def create(ctx: Context, request: CreateRequest) -> Row:
    """Ask the runner for one. Raises Refused `session-ended` with the last one that was kept."""
    session = ctx.store.find(request.id)
    if session.live:
        session = follow.advance(ctx, session)
        controller.ensure(ctx)
    if not session.live or session.handle is None:
        kept = task_checkpoints.of_session(ctx, session)
        last = f"; its last checkpoint is {kept[-1].id}" if kept else ""
        raise Refused(
            "session-ended",
            f"{session.id} is {session.state}{last}. Nothing was taken.",
            f"parhelia checkpoint list --session {session.task}",
        )
    sandbox = follow.open_sandbox(ctx, session)
    ask = {"id": str(uuid.uuid4()), "op": "checkpoint", "args": {"trigger": "manual", "note": request.note or ""}}
    with _looking(ctx, sandbox):
        reply = sandbox.control(ask, deadline=TAKE_S)
    if not reply.get("ok"):
        error = reply.get("error") or {}
        code = str(error.get("code", "no-checkpoint"))
        raise TROUBLES.get(code, Refused)(
            code,
            f"No checkpoint was taken: {clean(str(error.get('message', 'the runner refused')))}",
            clean(str(error.get("hint") or f"parhelia task show {session.task}")),
        )
    store = task_checkpoints.mirrored(ctx, session, packs=False)
    return row(stores.load(store, str(reply["result"]["hash"])))


@contextmanager
def _looking(ctx: Context, sandbox: Sandbox) -> Iterator[None]:
    """Meanwhile tell how far the runner has come, as it says itself on a connection of its own."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            with suppress(Problem):  # who cannot say how far it is still answers when it is done
                answer = sandbox.control({"id": str(uuid.uuid4()), "op": "status", "args": {}})
                if taking := (answer.get("result") or {}).get("taking"):
                    ctx.tell(Doing("taking a checkpoint", int(taking["files"]), int(taking["bytes"])))

    if ctx.watched:
        threading.Thread(target=look, name="looking", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def list_(ctx: Context, request: ListRequest) -> ListResult:
    if request.session:
        session = ctx.store.find(request.session)
        store = task_checkpoints.mirrored(ctx, session, packs=False)
        found, damaged = stores.survey(store)
        if "." in request.session:
            found = [one for one in found if one.session == session.id]
    else:
        surveyed = [stores.survey(task_checkpoints.of_task(ctx, task)) for task in task_checkpoints.tasks(ctx)]
        found = [one for kept, _ in surveyed for one in kept]
        damaged = [name for _, broken in surveyed for name in broken]
    if request.older_than:
        limit = now() - task_checkpoints.duration(request.older_than)
        found = [one for one in found if moment(one.created_at) < limit]
    found.sort(key=lambda one: one.created_at, reverse=True)
    return ListResult(checkpoints=[row(one) for one in found], damaged=[f"cp-{name[:8]}" for name in damaged])


def show(ctx: Context, request: OneRequest) -> ShowResult:
    session, found = task_checkpoints.find(ctx, request.id)
    store = task_checkpoints.mirrored(ctx, session, packs=True)
    try:
        inside = _inside_of(store, found)
    except Refused as locked:
        inside = {"locked": clean(str(locked))}
    kept = _snapshot(ctx, found)
    manifest = {**found.as_dict(), "snapshot": kept.model_dump() if kept else None}
    return ShowResult(**row(found).model_dump(), manifest=manifest, snapshot=kept, **inside)


def _snapshot(ctx: Context, found: Manifest) -> Snapshot | None:
    kept = snapshots.of(ctx, found.hash)
    if kept is None or not kept.usable:
        return None
    return Snapshot(provider=kept.provider, image=kept.image, expires_at=kept.expires_at)


def _inside_of(store: Store, found: Manifest) -> dict[str, Any]:
    """What only the packs say. Files that look like secrets are named, so that nobody is surprised."""
    with stores.reader(store, found) as opened:
        paths = [
            os.fsdecode(path) for path, entry in trees.walk(opened, bytes.fromhex(found.tree)) if entry.kind == FILE
        ]
    talk = compare.read_file(store, found, found.agent.transcript) if found.agent.transcript else b""
    screen = compare.read_file(store, found, found.tmux, limit=MOST_SCREEN) if found.tmux else b""
    return {
        "conversation": Conversation(
            path=shown(found.agent.transcript or ""), lines=talk.count(b"\n"), whole=talk.endswith(b"\n")
        )
        if talk
        else None,
        "tasks": sum(path.startswith("extra/tasks/") and path.endswith(".json") for path in paths),
        "screen": clean(screen.decode(errors="replace")).rstrip() or None,
        "sensitive": [shown(path) for path in paths if SENSITIVE.search(path)][:MOST_LISTED],
    }


def diff(ctx: Context, request: DiffRequest) -> DiffResult:
    """What the second has that the first has not. Raises Usage `two-tasks` for checkpoints of different stores."""
    session, first = task_checkpoints.find(ctx, request.a)
    other, second = task_checkpoints.find(ctx, request.b)
    if session.task != other.task:
        raise Usage(
            "two-tasks",
            f"{first.id} is of {session.task} and {second.id} of {other.task}; only checkpoints of one task are compared.",
            f"parhelia checkpoint list --session {session.task}",
        )
    store = task_checkpoints.mirrored(ctx, session, packs=True)
    found = compare.diff(store, first, second)
    text = clean(compare.text_diff(store, first, second, _inside(request.path))) if request.path else None
    return DiffResult(
        a=first.id,
        b=second.id,
        added=[shown(path) for path in found.added],
        changed=[shown(path) for path in found.changed],
        removed=[shown(path) for path in found.removed],
        sizes={shown(path): sizes for path, sizes in found.sizes.items()},
        text=text,
    )


def verify_(ctx: Context, request: OneRequest) -> VerifyResult:
    """Read every byte."""
    session, found = task_checkpoints.find(ctx, request.id)
    store = task_checkpoints.mirrored(ctx, session, packs=True)
    total = sum(pack.bytes for pack in found.packs)
    problems = verify.verify(store, found, lambda packs, done: ctx.tell(Doing("reading", done=done, total=total)))
    return VerifyResult(checkpoint_id=found.id, ok=not problems, problems=[clean(problem) for problem in problems])


def delete(ctx: Context, request: DeleteRequest) -> Removed:
    """Remove those named, or every one older than a time but the newest of each session."""
    if bool(request.ids) == bool(request.older_than):
        raise Usage(
            "what-to-delete",
            "Name checkpoints or give --older-than, one of them; nothing was removed.",
            "parhelia checkpoint delete --older-than 7d",
        )
    wanted = (
        [task_checkpoints.find(ctx, name) for name in request.ids]
        if request.ids
        else _old(ctx, request.older_than or "")
    )
    by_task: dict[str, list[str]] = {}
    for session, one in wanted:
        by_task.setdefault(session.task, []).append(one.hash)
    return _sum([task_checkpoints.removed(ctx, ctx.store.newest(task), names) for task, names in by_task.items()])


def _old(ctx: Context, older_than: str) -> list[tuple[Any, Manifest]]:
    limit = now() - task_checkpoints.duration(older_than)
    chosen = []
    for task in task_checkpoints.tasks(ctx):
        kept = stores.list_all(task_checkpoints.of_task(ctx, task))
        newest = {one.session: one.hash for one in kept}
        session = ctx.store.newest(task)
        chosen += [
            (session, one)
            for one in kept
            if moment(one.created_at) < limit and newest[one.session] != one.hash and not one.pinned
        ]
    return chosen


def gc(ctx: Context) -> Removed:
    """Remove what no checkpoint needs any more."""
    return _sum([retention.gc(task_checkpoints.of_task(ctx, task)) for task in task_checkpoints.tasks(ctx)])


def _sum(done: list[retention.Removed]) -> Removed:
    return Removed(
        removed=[f"cp-{name.removeprefix('cp-')[:8]}" for each in done for name in each.checkpoints],
        packs=sum(each.packs for each in done),
        bytes=sum(each.bytes for each in done),
    )


def row(one: Manifest) -> Row:
    """What a list says of a checkpoint."""
    return Row(
        checkpoint_id=one.id,
        task_id=one.task,
        session_id=one.session,
        trigger=one.trigger,
        created_at=one.created_at,
        consistent=one.consistent,
        pending_tool=clean(one.pending_tool) if one.pending_tool else None,
        files=one.files,
        bytes=one.bytes,
        stored_bytes=one.stored_bytes,
        partial=one.partial,
        skipped=[{"path": shown(each.path), "why": each.why} for each in one.skipped[:MOST_LISTED]],
        changed=[shown(path) for path in one.changed[:MOST_LISTED]],
        expires_at=one.expires_at,
        kept_longer=one.trigger in retention.KEPT_LONGER or one.pinned,
        pinned=one.pinned,
        parent=one.parent,
        turns=one.counters.turns,
        spent_usd=one.counters.usd,
    )


def shown(path: str) -> str:
    """A path as text: what is not UTF-8 escaped, nothing that acts on a terminal."""
    return clean(path.encode(errors="surrogateescape").decode(errors="backslashreplace"))


def _inside(path: str) -> str:
    return path if path.startswith(("workspace/", "conversation/", "extra/")) else f"workspace/{path}"
