"""Sessions that the database has never heard of, from what lies in their folders and what providers list.

A session's own files outlive the database: `row.json` (what was stored when it was created), the journal with every charge,
`result.json`. Nothing here starts or ends anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from parhelia_mcp import billing, budget, files, prices
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.follow.session import paid_s
from parhelia_mcp.follow.watch import micro_of
from parhelia_mcp.model import SESSION_ID, Reason, Sizes, State, micro, moment, session_id, timestamp
from parhelia_mcp.providers.base import Handle
from parhelia_mcp.spec import Spec
from parhelia_mcp.store import Session, Task


def unknown(ctx: Context) -> list[tuple[Task, Session]]:
    """The sessions whose folders are here and whose rows are not, a task's oldest first."""
    held = {row["id"] for row in ctx.store.query("SELECT id FROM sessions")}
    found = []
    for folder in ctx.home.glob("tasks/*/sessions/*"):
        name = f"{folder.parent.parent.name}.{folder.name}"
        if SESSION_ID.fullmatch(name) and name not in held and (rows := _rows(ctx, folder)):
            found.append(rows)
    return sorted(found, key=lambda rows: (rows[1].task, rows[1].number))


def from_spec(
    ctx: Context, raw: Mapping[str, Any], session: str, provider: str, created_at: str
) -> tuple[Task, Session]:
    """The rows as far as a spec says them; the directory it came from is not in it."""
    told = Spec.of(raw)
    number = int(session.rpartition(".")[2])
    deadline = moment(told.limits.deadline) if told.limits.deadline else moment(created_at)
    timeout_s = told.limits.paid_s or paid_s(max(60.0, (deadline - moment(created_at)).total_seconds()))
    sizes = Sizes(**told.sizes)
    task = Task(told.task, created_at, told.prompt, told.command, provider, None, None, None, {})
    return task, Session(
        id=session,
        task=told.task,
        number=number,
        latest=1,
        state=State.RUNNING,
        reason=None,
        detail=None,
        provider=provider,
        cpu=sizes.cpu,
        memory_gb=sizes.memory_gb,
        gpu=sizes.gpu,
        region=told.region,
        timeout_s=timeout_s,
        max_usd=told.limits.max_usd,
        tokens_micro=micro(told.limits.max_tokens_usd or 0),
        rate_micro=prices.compute_rate_micro_per_hour(provider, sizes, told.region, billing.prices_for(ctx, provider)),
        created_at=created_at,
        spec={**raw, "session": session},
        sources=[],
        agent_session=told.agent.session_id,
    )


def adopt(ctx: Context, task: Task, session: Session, handle: Handle | None) -> Session:
    """Store the session: as it ended where its result is there, as one that lives where it has a sandbox, else as lost.

    Its charges come from its journal, each once; a living one gets its reservation back as far as the ceiling allows.
    """
    folder = ctx.session_dir(session.task, session.number)
    events = list(_events(folder / "events.jsonl"))
    result = document(folder / "result.json")
    started = next((event["at"] for event in events if event.get("kind") == "entrypoint"), None)
    if result is None and handle is not None:
        session = _living(session, handle, started)
    else:
        last = events[-1]["at"] if events else session.created_at
        session = _ended(ctx, replace(session, started_at=started), result, last)
    with ctx.store.transaction() as db:
        if not db.execute("SELECT 1 FROM tasks WHERE id = ?", (task.id,)).fetchone():
            ctx.store.add_task(db, task)
        ctx.store.add_session(db, session)
    if session.live:
        _reserve(ctx, session)
    else:
        _charge(ctx, session, events)
    budget.publish(ctx)
    return session


def _living(session: Session, handle: Handle, started: str | None) -> Session:
    return replace(
        session,
        state=State.RUNNING if started else State.STARTING,
        handle={"provider": handle.provider, "name": handle.name, "data": dict(handle.data)},
        started_at=started or session.created_at,
        delivered_at=started,
        journal_offset=0,
    )


def _ended(ctx: Context, session: Session, result: Mapping[str, Any] | None, last: str) -> Session:
    said = result or {
        "state": "lost" if session.started_at else "failed",
        "reason": "provider-lost" if session.started_at else "start-failed",
        "detail": "error: the database was lost, and no sandbox of this session was found",
    }
    commit = said.get("commit")
    landed = {"ref": f"refs/parhelia/{session.task}/{session.number}", "branch": f"parhelia/{session.task}"}
    return replace(
        session,
        state=State(said["state"]),
        reason=Reason(said["reason"]) if said.get("reason") else None,
        exit_code=said.get("exit_code"),
        detail=said.get("detail"),
        ended_at=said.get("ended_at", last),
        settled_at=timestamp(),
        result={**landed, "commit": commit, "files_changed": said.get("files_changed")} if commit else None,
        observed=result is not None,
        observed_at=said.get("ended_at"),
    )


def _reserve(ctx: Context, session: Session) -> None:
    from parhelia_mcp.follow.settle import reserve_for

    compute = reserve_for(session.rate_micro, session.timeout_s)
    try:
        with ctx.store.transaction() as db:
            budget.admit(ctx, db, session, compute, session.tokens_micro)
    except Refused:
        return  # what it costs is charged all the same, and then blocks what is new


def _charge(ctx: Context, session: Session, events: list[dict[str, Any]]) -> None:
    with ctx.store.transaction() as db:
        for event in events:
            if event.get("kind") == "usage":
                key = str(event.get("key", event.get("seq")))
                budget.charge(db, session, "tokens", micro_of(event), key)
        if session.started_at and session.ended_at:
            seconds = (moment(session.ended_at) - moment(session.started_at)).total_seconds()
            paid = min(max(seconds, 0.0), session.timeout_s)
            budget.charge(db, session, "compute", -(-session.rate_micro * round(paid * 1000) // 3_600_000), "final")


def _rows(ctx: Context, folder: Path) -> tuple[Task, Session] | None:
    kept = document(folder / "row.json")
    if kept:
        task, session = kept["task"], kept["session"]
        command = tuple(task["command"]) if task["command"] is not None else None
        return Task(**{**task, "command": command}), Session(**{**session, "state": State(session["state"])})
    spec = document(folder.parent.parent / "spec.json")
    first = next(_events(folder / "events.jsonl"), None)
    if spec is None or first is None:
        return None  # it never came to anything
    provider = "local" if (folder / "sandbox.json").exists() else "modal"
    name = session_id(folder.parent.parent.name, int(folder.name))
    return from_spec(ctx, spec, name, provider, first["at"])


def document(path: Path) -> Any:
    """The JSON document in a file, or None where there is none or it is damaged: what can be rebuilt is."""
    try:
        return parsed(path.read_bytes())
    except OSError:
        return None


def parsed(data: bytes) -> Any:
    """The JSON document, or None for what is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def _events(path: Path) -> Iterator[dict[str, Any]]:
    offset = 0
    while data := files.read_at(path, offset, 1 << 20):
        lines = list(files.whole_lines(data))
        for line, _ in lines:
            event = parsed(line)
            if isinstance(event, dict) and "at" in event:
                yield event
        if not lines:
            return
        offset += lines[-1][1]
