"""What agents in sessions hand on: each request becomes a task of its own, paid out of what the asking session holds.

A request comes with the session's journal, after its runner has taken the money out of what the agent may still spend
and a checkpoint of the workspace. Here it becomes a task, once, by its idempotency key `SESSION:NUMBER`, and the runner
is told what became of it. Nothing of ours is shared with the agent.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from parhelia_mcp import budget, files, follow, sessions, task_checkpoints, terms
from parhelia_mcp.checkpoint.store import load
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Problem, Refused, Unreachable, Usage
from parhelia_mcp.failpoint import reach
from parhelia_mcp.model import dollars, micro, new_task_id, session_id, split_session, timestamp
from parhelia_mcp.plain import clean
from parhelia_mcp.spec import Agent
from parhelia_mcp.store import Session, Task

LAST_WORDS = 2_000  # bytes of a task's output that the one who handed it on is told at its end


class Request(BaseModel, extra="forbid", strict=True):
    """What a runner asks for in its agent's name."""

    prompt: Annotated[str, Field(min_length=1)]
    max_usd: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    timeout_hours: Annotated[float | None, Field(gt=0, le=720, allow_inf_nan=False)] = None
    model: str | None = None
    checkpoint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # the workspace, as it was


def children(ctx: Context, id: str) -> list[str]:
    """The tasks that a session, or all sessions of a task, handed on, oldest first."""
    first, last = (id, id) if "." in id else (f"{id}.", f"{id}/")
    sql = "SELECT id FROM tasks WHERE parent >= ? AND parent <= ? ORDER BY created_at"
    return [row["id"] for row in ctx.store.query(sql, first, last)]


def depth(ctx: Context, task: Task) -> int:
    """How many sessions a task was handed on through."""
    if task.parent is None:
        return 0
    return 1 + depth(ctx, ctx.store.task(split_session(task.parent)[0]))


def handed_on(ctx: Context, id: str) -> int:
    """Micro-dollars that a session, or all sessions of a task, gave to the tasks they handed on."""
    return sum(micro(ctx.store.task(task).request["max_usd"]) for task in children(ctx, id))


def serve(ctx: Context, session: Session, told: dict[str, Any]) -> None:
    """Start what the agent of a living session asked for, and tell its runner of that and of what came of the rest.

    `told` remembers what each session knows; losing it tells them again. One at a time may do this: the controller.
    """
    if not session.live or session.delivered_at is None or not (session.spec or {}).get("agent", {}).get("delegate"):
        return
    asked = ctx.store.query("SELECT * FROM delegations WHERE session = ? ORDER BY number", session.id)
    answers = {row["number"]: _answer(ctx, session, row) for row in asked}
    tasks = {task: _told(ctx, task) for task in children(ctx, session.task)}
    known = {"answers": {number: answer for number, answer in answers.items() if answer}, "tasks": tasks}
    if any(known.values()) and told.get(session.id) != known:
        with suppress(Unreachable):  # a runner that cannot hear is told next time
            reply = follow.open_sandbox(ctx, session).control({"id": "told", "op": "delegated", "args": known})
            told[session.id] = known if reply.get("ok") else None


def _answer(ctx: Context, session: Session, row: Mapping[str, Any]) -> Any:
    """What became of one request: its task, or the refusal; None while nobody could say."""
    if row["answer"] is not None:
        return json.loads(row["answer"])
    try:
        made = _start(ctx, session, row["number"], json.loads(row["request"]))
        answer: dict[str, Any] = {"task_id": made.task}
    except (Unreachable, Busy):
        return None
    except Problem as problem:
        answer = {"error": problem.as_dict()}
    reach("delegation.started")
    with ctx.store.transaction() as db:
        sql = "UPDATE delegations SET answer = ? WHERE session = ? AND number = ?"
        db.execute(sql, (json.dumps(answer), session.id, row["number"]))
    return answer


def _start(ctx: Context, parent: Session, number: int, given: Any) -> Session:
    """The task for a request: new, reserved out of its parent's money and pending, or the one that it became before."""
    try:
        request = Request.model_validate(given)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Usage("bad-request", f"{where}: {first['msg']}. Nothing was started.") from None
    key = f"{parent.id}:{number}"
    if known := ctx.store.by_key(key):
        return ctx.store.newest(known.id)
    task_id = new_task_id()
    try:
        made = _store(ctx, parent, request, key, task_id)
    except BaseException:
        sessions.forget(ctx, task_id)
        raise
    return made


def _store(ctx: Context, parent: Session, request: Request, key: str, task_id: str) -> Session:
    """The files, the task and the session, where it fits. Raises Refused `not-to-be-handed-on`, `over-task-limit`."""
    before, above = follow.spec_of(parent), ctx.store.task(parent.task)
    if before.agent.delegate < 1:
        raise Refused("not-to-be-handed-on", f"{parent.id} may hand nothing on. Nothing was started.")
    asked = _asked(ctx, parent, request)
    folder = files.private_dir(ctx.session_dir(task_id, 1))
    kept = load(task_checkpoints.mirrored(ctx, parent, packs=True), request.checkpoint)
    sources = task_checkpoints.copied(ctx, parent, kept, task_id)
    agent = _agent(before.agent, request)
    agent, carried = sessions.configured(ctx, agent, above.repository or above.source, folder, asked.cost)
    spec = replace(
        before,
        task=task_id,
        session=session_id(task_id, 1),
        workspace=replace(before.workspace, inputs=(), checkpoint=kept.hash),
        limits=terms.limits_for(asked.sizes, request.max_usd, asked.cost, agent),
        agent=agent,
        prompt=request.prompt,
        message=None,
    )
    task = Task(
        id=task_id,
        created_at=timestamp(),
        prompt=request.prompt,
        command=None,
        provider=parent.provider,
        source=above.source,
        repository=above.repository,
        idempotency_key=key,
        request=request.model_dump(exclude_none=True, exclude={"prompt", "checkpoint"}),
        parent=parent.id,
    )
    return sessions.create(ctx, task, 1, spec, [*sources, *carried], asked, new_task=True, out_of=parent)


def _agent(before: Agent, request: Request) -> Agent:
    """The parent's, with a conversation of its own, and a level less to hand on."""
    model = request.model or before.model
    fresh = {"interactive": False, "session_id": str(uuid.uuid4()), "resume": False}
    return replace(before, model=model, delegate=before.delegate - 1, **fresh)


def _asked(ctx: Context, parent: Session, request: Request) -> sessions.Asked:
    """The parent's sizes, for as long as its sandbox could live and the money lasts."""
    provider, sizes, region, most = parent.provider, parent.sizes, parent.region, request.max_usd
    hours = request.timeout_hours
    timeout_s = hours * 3600 if hours else sessions.unasked_time(ctx, provider, sizes, region, most, True)
    timeout_s = sessions.life(ctx, provider, timeout_s)
    cost = sessions.worst_case(ctx, provider, sizes, region, timeout_s, most, True)
    return sessions.Asked(sizes, region, timeout_s, most, cost)


def _told(ctx: Context, task: str) -> dict[str, Any]:
    """What the one who handed a task on is told of it."""
    session = ctx.store.newest(task)
    result = session.result or {}
    facts = {
        "task_id": task,
        "state": str(session.state),
        "reason": session.reason and str(session.reason),
        "detail": session.detail,
        "waiting_for": session.waiting_for if session.live else None,
        "not_started_because": session.observed_why if session.live and session.handle is None else None,
        "spent_usd": dollars(budget.account(ctx, task=task).spent),
        "branch": result.get("branch"),
        "commit": result.get("commit"),
        "files_changed": result.get("files_changed"),
        "last_words": None if session.live else _last_words(ctx, session),
    }
    said = {name: clean(fact) if isinstance(fact, str) else fact for name, fact in facts.items() if fact is not None}
    return {**said, "ended": not session.live}


def _last_words(ctx: Context, session: Session) -> str | None:
    path = ctx.session_dir(session.task, session.number) / "stdout.log"
    size = path.stat().st_size if path.exists() else 0
    return files.read_at(path, max(size - LAST_WORDS, 0), LAST_WORDS).decode(errors="replace").strip() or None
