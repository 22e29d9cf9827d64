"""One row a task, newest first, with its newest session."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import budget, controller
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Usage
from parhelia_mcp.model import State, dollars
from parhelia_mcp.plain import line
from parhelia_mcp.store import Session


class Request(BaseModel, extra="forbid"):
    """List tasks."""

    state: Annotated[str | None, Field(description="Only this state, or several with commas")] = None
    limit: Annotated[int, Field(ge=1, le=10_000, description="Rows a page")] = 20
    cursor: Annotated[str | None, Field(description="next_cursor of the page before")] = None


class Row(BaseModel):
    task_id: str
    session_id: str
    state: str
    reason: str | None
    provider: str
    gpu: str | None
    title: str
    parent: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    spent_usd: float
    reserved_usd: float
    last_activity: str | None
    kill_requested_at: str | None
    observed: bool
    observed_at: str | None


class Result(BaseModel):
    tasks: list[Row]
    next_cursor: str | None


def run(ctx: Context, request: Request) -> Result:
    page, more = sessions(ctx, request.state, request.limit, request.cursor)
    return Result(tasks=[row(ctx, session) for session in page], next_cursor=more)


def sessions(ctx: Context, state: str | None, limit: int, cursor: str | None) -> tuple[list[Session], str | None]:
    """The newest session of each task in these states, newest first, and where the next page begins."""
    rows = ctx.store.page(states=states(state), limit=limit + 1, before=_decoded(cursor))
    if any(session.live for session in rows):
        controller.ensure(ctx)
    page = rows[:limit]
    return page, _encoded(page[-1]) if len(rows) > limit else None


def row(ctx: Context, session: Session) -> Row:
    """One task as a list shows it."""
    task = ctx.store.task(session.task)
    spent = budget.account(ctx, task=session.task)
    return Row(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        reason=str(session.reason) if session.reason else None,
        provider=session.provider,
        gpu=session.gpu,
        title=line(task.prompt if task.prompt is not None else " ".join(task.command or ()), 100),
        parent=task.parent,
        created_at=task.created_at,
        started_at=session.started_at,
        ended_at=session.ended_at,
        spent_usd=dollars(spent.spent),
        reserved_usd=dollars(spent.reserved),
        last_activity=line(session.last_activity or "") or None,
        kill_requested_at=session.kill_requested_at if session.live else None,
        observed=session.observed,
        observed_at=session.observed_at,
    )


def states(text: str | None) -> tuple[str, ...]:
    """The states a person named, in any case, with commas. Raises Usage `unknown-state` with the nearest."""
    if not text:
        return ()
    names = []
    for word in text.replace(" ", "").lower().split(","):
        if word == "active":
            names += [str(state) for state in State if state.live]
        elif word in list(State):
            names.append(word)
        else:
            import difflib

            near = difflib.get_close_matches(word, [*State, "active"], n=1)
            raise Usage(
                "unknown-state",
                f"No state {word[:40]!r}; there are {', '.join(State)}.",
                f"--status {near[0] if near else 'running'}",
            )
    return tuple(names)


def _encoded(session: Session) -> str:
    return base64.urlsafe_b64encode(f"{session.created_at}/{session.id}".encode()).decode().rstrip("=")


def _decoded(cursor: str | None) -> str | None:
    if not cursor:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except ValueError:
        text = ""
    if "/task-" not in text:
        raise Usage("bad-cursor", f"{cursor[:80]!r} is not a cursor of this list.", "start again without --cursor")
    return text
