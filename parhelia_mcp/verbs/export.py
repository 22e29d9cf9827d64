"""What sessions used and cost, a row each, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp.context import Context
from parhelia_mcp.model import dollars, moment
from parhelia_mcp.plain import line
from parhelia_mcp.store import Session


class Request(BaseModel, extra="forbid"):
    """Report usage."""

    id: Annotated[str | None, Field(description="Only this task; default: every one")] = None


class Row(BaseModel):
    task_id: str
    session_id: str
    title: str
    state: str
    reason: str | None
    provider: str
    gpu: str | None
    cpu: float
    memory_gb: float | None
    region: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    compute_usd: float
    tokens_usd: float
    spent_usd: float
    reserved_usd: float
    exit_code: int | None
    branch: str | None


class Result(BaseModel):
    sessions: list[Row]


def run(ctx: Context, request: Request) -> Result:
    """Sessions oldest first, of one task or of all."""
    if request.id:
        sessions = ctx.store.sessions(ctx.store.find(request.id).task)
    else:
        sessions = [one for newest in reversed(ctx.store.page(limit=-1)) for one in ctx.store.sessions(newest.task)]
    return Result(sessions=[_row(ctx, session) for session in sessions])


def _row(ctx: Context, session: Session) -> Row:
    task = ctx.store.task(session.task)
    books = ctx.store.query(
        "SELECT source, charged, max(reserved - released - charged, 0) AS held FROM accounts WHERE session = ?",
        session.id,
    )
    charged = {book["source"]: book["charged"] for book in books}
    return Row(
        task_id=session.task,
        session_id=session.id,
        title=line(task.prompt if task.prompt is not None else " ".join(task.command or ()), 100),
        state=str(session.state),
        reason=str(session.reason) if session.reason else None,
        provider=session.provider,
        gpu=session.gpu,
        cpu=session.cpu,
        memory_gb=session.memory_gb or None,
        region=session.region,
        created_at=session.created_at,
        started_at=session.started_at,
        ended_at=session.ended_at,
        seconds=_seconds(session),
        compute_usd=dollars(charged.get("compute", 0)),
        tokens_usd=dollars(charged.get("tokens", 0)),
        spent_usd=dollars(sum(charged.values())),
        reserved_usd=dollars(sum(book["held"] for book in books)),
        exit_code=session.exit_code,
        branch=(session.result or {}).get("branch"),
    )


def _seconds(session: Session) -> float | None:
    if not session.started_at or not session.ended_at:
        return None
    return round((moment(session.ended_at) - moment(session.started_at)).total_seconds(), 3)


def as_csv(result: Result) -> str:
    """One line a session under the names of the fields; a text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in result.sessions:
        cells = row.model_dump()
        writer.writerow({**cells, "title": f"'{row.title}" if row.title[:1] in "=+-@" else row.title})
    return out.getvalue()
