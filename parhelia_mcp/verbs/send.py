"""Say something to a living session, or answer what it waits for."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import controller, follow
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused, Unreachable, Usage
from parhelia_mcp.model import State
from parhelia_mcp.plain import clean
from parhelia_mcp.store import Session

DEADLINE_S = 60.0  # a message is taken at the next request of the agent at the latest
NEXT = {  # what to do about a refusal of the runner, by its code
    "typing-begun": "parhelia attach {task}",
    "session-ending": 'parhelia submit --to {task} "..."',
}


class Request(BaseModel, extra="forbid"):
    """Send a message, or an answer: `allow` true or false, with `message` as the text or the chosen option."""

    id: Annotated[str, Field(description="Task or session")]
    message: str | None = None
    allow: bool | None = None


class Result(BaseModel):
    task_id: str
    session_id: str
    message_id: str | None
    delivered: bool
    what: str


def run(ctx: Context, request: Request) -> Result:
    """Deliver and return the proof. Raises Refused `session-ended` for a session that no longer lives."""
    session = ctx.store.find(request.id)
    if request.message is None and request.allow is None:
        raise Usage(
            "nothing-to-say", "Give a message, allow or deny; nothing was sent.", f'parhelia send {session.task} "..."'
        )
    if not session.live:
        raise Refused(
            "session-ended",
            f"{session.id} has ended ({session.state}), so nobody hears it; nothing was sent.",
            f'parhelia submit --to {session.task} "..."',
        )
    session = follow.advance(ctx, session)
    controller.ensure(ctx)
    if session.handle is None or session.state in (State.PENDING, State.STARTING):
        raise Refused(
            "session-not-ready",
            f"{session.id} is {session.state}; nothing was sent.",
            f"parhelia task show {session.task}",
        )
    if request.allow is None:
        number = str(uuid.uuid4())
        asked = {"op": "send", "args": {"id": number, "text": request.message}}
    else:
        number = None
        asked = {"op": "answer", "args": {"allow": request.allow, "text": request.message}}
    _ask(ctx, session, asked)
    what = "delivered" if number else f"answered: {'allow' if request.allow else 'deny'}"
    return Result(task_id=session.task, session_id=session.id, message_id=number, delivered=True, what=what)


def _ask(ctx: Context, session: Session, asked: dict[str, Any]) -> None:
    try:
        reply = follow.open_sandbox(ctx, session).control({"id": str(uuid.uuid4()), **asked}, deadline=DEADLINE_S)
    except Unreachable as problem:
        raise Unreachable(
            "delivery-unconfirmed",
            f"{problem.message} Whether it was delivered is not known; the agent may still take it at its next step.",
            f"parhelia logs {session.task} --grep message-delivered",
        ) from None
    if not reply.get("ok"):
        error = reply.get("error") or {}
        code, why = str(error.get("code", "not-delivered")), clean(str(error.get("message", "the runner refused it")))
        following = NEXT.get(code, "parhelia task show {task}").format(task=session.task)
        raise Refused(code, f"{why} Nothing was delivered.", following)
