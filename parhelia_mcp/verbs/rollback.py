"""Go back to a checkpoint: the living session ends, the next one starts from there."""

from __future__ import annotations

from pydantic import BaseModel

from parhelia_mcp import task_checkpoints
from parhelia_mcp.context import Context
from parhelia_mcp.verbs import kill, resume


class Request(BaseModel, extra="forbid"):
    """Roll a task back."""

    id: str


def run(ctx: Context, request: Request, *, by_person: bool = False) -> resume.Result:
    """Verify first, then end what lives: a damaged checkpoint costs nobody their session."""
    session, chosen = task_checkpoints.find(ctx, request.id)
    task_checkpoints.require(ctx, session, chosen)
    if session.live:
        kill.run(ctx, kill.Request(id=session.id))
    return resume.start(ctx, ctx.store.newest(session.task), chosen, by_person=by_person)
