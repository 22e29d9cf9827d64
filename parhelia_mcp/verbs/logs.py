"""A session's log: what happened and what the agent printed, merged by time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from parhelia_mcp import controller, logbook
from parhelia_mcp.context import Context
from parhelia_mcp.store import Session

POLL_S = 0.05


class Request(BaseModel, extra="forbid"):
    """Read a session's log, of a living or an ended one."""

    id: Annotated[str, Field(description="Task or session")]
    tail: Annotated[int | None, Field(ge=1, le=1_000_000, description="Only the last lines")] = None
    grep: Annotated[str | None, Field(max_length=1000, description="Only lines that match this regular expression")] = (
        None
    )
    stream: Annotated[Literal["all", "events", "output", "system"], Field(description="Which lines")] = "all"
    cursor: Annotated[str | None, Field(description="next_cursor of the reading before")] = None


class LogLine(BaseModel):
    at: str
    stream: str
    kind: str
    text: str


class Result(BaseModel):
    task_id: str
    session_id: str
    state: str
    lines: list[LogLine]
    next_cursor: str
    omitted: int = 0  # matches before those shown


def run(ctx: Context, request: Request, *, most_bytes: int | None = None) -> Result:
    """The lines asked for. `most_bytes` ends a page early; `next_cursor` goes on from there.

    Of a search the last matches that fit are given. A line longer than a quarter of a page is cut, and says so.
    """
    session = _current(ctx, ctx.store.find(request.id))
    folder = ctx.session_dir(session.task, session.number)
    begin = logbook.Position.parse(request.cursor) if request.cursor else logbook.Position()
    position = begin
    if request.grep:
        found, position = logbook.search(
            folder,
            request.grep,
            stream=request.stream,
            count=request.tail or 100_000,
            ended=not session.live,
            begin=begin,
        )
        kept = _last(found, most_bytes) if most_bytes else found
        return _result(session, kept, position, most_bytes, omitted=len(found) - len(kept))
    if request.tail and not request.cursor:
        position = logbook.tail(folder, request.tail, stream=request.stream)
    lines, size = [], 0
    for line in logbook.forward(folder, position, stream=request.stream, ended=not session.live):
        size += _size(line, most_bytes)
        if lines and (
            most_bytes and size > most_bytes or request.cursor and request.tail and len(lines) >= request.tail
        ):
            break
        lines.append(line)
        position = line.after
    return _result(session, lines, position, most_bytes)


def _last(found: list[logbook.Line], most_bytes: int) -> list[logbook.Line]:
    """The last lines that fit."""
    size = 0
    for number, line in enumerate(reversed(found)):
        size += _size(line, most_bytes)
        if size > most_bytes:
            return found[len(found) - number :]
    return found


def _size(line: logbook.Line, most_bytes: int | None) -> int:
    """The bytes of a line on a page, with its time and kind."""
    size = len(line.text.encode(errors="replace"))
    return (min(size, most_bytes // 4) if most_bytes else size) + 60


def follow_lines(ctx: Context, request: Request) -> Iterator[LogLine]:
    """The lines asked for, then every new one until the session ends."""
    session = _current(ctx, ctx.store.find(request.id))
    folder = ctx.session_dir(session.task, session.number)
    position = logbook.Position.parse(request.cursor) if request.cursor else logbook.Position()
    if request.tail and not request.cursor:
        position = logbook.tail(folder, request.tail, stream=request.stream)
    wanted = logbook.compiled(request.grep) if request.grep else None
    while True:
        ended = not session.live
        for line in logbook.forward(folder, position, stream=request.stream, ended=ended):
            position = line.after
            if wanted is None or wanted.search(f"{line.kind} {line.text}"):
                yield _shown(line)
        if ended:
            return
        time.sleep(POLL_S)
        session = _current(ctx, session)


def _current(ctx: Context, session: Session) -> Session:
    if session.live:
        from parhelia_mcp import follow  # an ended session's log needs nothing that drives one

        session = follow.advance(ctx, session)
        controller.ensure(ctx)
    return session


def _result(
    session: Session,
    lines: list[logbook.Line],
    position: logbook.Position,
    most_bytes: int | None = None,
    omitted: int = 0,
) -> Result:
    longest = most_bytes // 4 - 30 if most_bytes else None
    return Result(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        lines=[_shown(line, longest) for line in lines],
        next_cursor=str(position),
        omitted=omitted,
    )


def _shown(line: logbook.Line, longest: int | None = None) -> LogLine:
    """The line as it is shown; `longest` in bytes."""
    text, data = line.text, line.text.encode(errors="replace") if longest else b""
    if longest and len(data) > longest:
        text = f"{data[:longest].decode(errors='ignore')}… [{len(data) - longest} bytes more]"
    return LogLine(at=line.at, stream=line.stream, kind=line.kind, text=text)
