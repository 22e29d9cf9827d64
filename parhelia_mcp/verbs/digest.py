"""What is going on, small enough to read every minute: counts, what changed since a mark, what needs a decision.

Its size depends on `limit`, never on how many tasks there are. A mark is a number that grows with every change of a task's
state; `wait` in a front door is: read the mark, look again until it has grown.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import budget, controller
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Usage
from parhelia_mcp.model import State, dollars
from parhelia_mcp.plain import line
from parhelia_mcp.store import Session
from parhelia_mcp.verbs import list as listing

TITLE, ACTIVITY = 80, 120  # characters
MOST_DECISIONS = 5


class Request(BaseModel, extra="forbid"):
    """Show what changed."""

    since: Annotated[str | None, Field(description="The mark of the reading before")] = None
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class Row(BaseModel):
    task_id: str
    session_id: str
    state: str
    title: str
    spent_usd: float
    reason: str | None = None
    last_activity: str | None = None
    waiting_for: str | None = None
    branch: str | None = None
    kill_requested_at: str | None = None
    observed: bool = True
    observed_at: str | None = None


class Decision(BaseModel):
    """A task that goes no further by itself."""

    task_id: str
    what: str
    next: str


class Result(BaseModel):
    counts: dict[str, int]
    tasks: list[Row]
    more: int
    decisions: list[Decision]
    ceiling_usd: float
    spent_usd: float
    reserved_usd: float
    remaining_usd: float
    since: str
    live: bool


class Page(BaseModel):
    tasks: list[Row]
    next_cursor: str | None


def run(ctx: Context, request: Request) -> Result:
    """The tasks that changed since the mark, oldest change first; without a mark the newest changes."""
    since = marked(request.since)
    newest = ctx.store.mark()
    found = ctx.store.changed(since, request.limit)
    rows = [row(ctx, session) for _, session in found]
    if any(session.live for _, session in found):
        controller.ensure(ctx)
    more = ctx.store.changes_after(since) - len(found) if since is not None else 0
    upto = found[-1][0] if more > 0 else max([newest, *(mark for mark, _ in found)])
    now = budget.standing(ctx)
    counts = ctx.store.counts()
    return Result(
        counts=counts,
        tasks=rows,
        more=max(more, 0),
        decisions=_decisions(ctx, [session for _, session in found]),
        ceiling_usd=dollars(now.ceiling),
        spent_usd=dollars(now.spent),
        reserved_usd=dollars(now.reserved),
        remaining_usd=dollars(now.remaining),
        since=str(upto),
        live=any(State(state).live for state in counts),
    )


def page(ctx: Context, state: str | None, limit: int, cursor: str | None) -> Page:
    """Tasks in these states, newest first, a page at a time."""
    rows, more = listing.sessions(ctx, state, limit, cursor)
    return Page(tasks=[row(ctx, session) for session in rows], next_cursor=more)


def marked(text: str | None) -> int | None:
    """The mark that a reader gave back. Raises Usage `bad-mark`."""
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise Usage("bad-mark", f"{text[:80]!r} is not a mark of an earlier status.", "parhelia list")
    return int(text)


def row(ctx: Context, session: Session) -> Row:
    """One task in a few words."""
    task = ctx.store.task(session.task)
    return Row(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        title=line(task.prompt if task.prompt is not None else " ".join(task.command or ()), TITLE),
        spent_usd=dollars(budget.account(ctx, task=session.task).spent),
        reason=str(session.reason) if session.reason else None,
        last_activity=line(session.last_activity or "", ACTIVITY) or None if session.live else None,
        waiting_for=_asked(session),
        branch=(session.result or {}).get("branch"),
        kill_requested_at=session.kill_requested_at if session.live else None,
        observed=session.observed or not session.live,
        observed_at=session.observed_at if session.live and not session.observed else None,
    )


def next_step(session: Session) -> str:
    """The command to type now."""
    branch = (session.result or {}).get("branch") or (session.result or {}).get("ref")
    if session.state is State.WAITING:
        return f"parhelia send {session.task} allow"
    if session.live:
        return f"parhelia logs {session.task} --follow"
    if session.state is State.COMPLETED:
        return f"git diff HEAD...{branch}" if branch else f"parhelia logs {session.task} --tail 50"
    return f"parhelia recover {session.task}"


def _asked(session: Session) -> str | None:
    return line(session.waiting_for or "", ACTIVITY) or None if session.state is State.WAITING else None


def _decisions(ctx: Context, listed: list[Session]) -> list[Decision]:
    waiting = ctx.store.page(states=(State.WAITING,), limit=MOST_DECISIONS)
    ended = [session for session in listed if session.state in (State.FAILED, State.LOST)]
    return [
        Decision(task_id=session.task, what=_why(session), next=next_step(session))
        for session in [*waiting, *ended][:MOST_DECISIONS]
    ]


def _why(session: Session) -> str:
    if session.state is State.WAITING:
        return f"waits for: {_asked(session) or 'an answer'}"
    return line(f"{session.state}, {session.reason}: {session.detail or ''}".rstrip(": "), ACTIVITY)
