"""Asking the person at the client before money, work or files are at stake.

A client that can show a form asks; elsewhere, and where the answer is not yes, nothing happens and the refusal names the
command that a person types. What an agent may do unasked is the user's `[agent] may`.
"""

from __future__ import annotations

from typing import Annotated

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver import Elicit
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from parhelia_mcp.context import Context


class Agreed(BaseModel):
    """The person's answer."""

    agree: Annotated[bool, Field(title="Agree", description="Yes, do it")] = True


class Need(BaseModel):
    """Something that a person has to agree to; `question` is empty where nothing is asked."""

    question: str = ""
    refusal: str = ""
    micro: int = 0


UNASKED = Agreed(agree=False)


def ctx_of(call: Call) -> Context:
    """What every verb is given, with the settings of this moment."""
    return call.request_context.lifespan_context()


def may(call: Call, what: str) -> bool:
    """Whether the user lets an agent do this unasked."""
    return what in ctx_of(call).config.agent.may


def can_ask(call: Call) -> bool:
    """Whether this client shows forms to a person."""
    form = call.client_capabilities.elicitation if call.client_capabilities else None
    return form is not None and (form.form is not None or form.url is None)


async def ask(call: Call, need: Need) -> Agreed | Elicit[Agreed]:
    """The question, where there is one and somebody to ask."""
    return Elicit(need.question, Agreed) if need.question and can_ask(call) else UNASKED


def granted(need: Need, answer: ElicitationResult[Agreed]) -> bool:
    """Whether the person said yes. Raises ToolError with the refusal where one was needed and did not come."""
    if not need.question:
        return False
    if isinstance(answer, AcceptedElicitation) and answer.data.agree:
        return True
    how = {"decline": "The person said no. ", "cancel": "No person answered. "}.get(answer.action, "")
    raise ToolError(how + need.refusal)
