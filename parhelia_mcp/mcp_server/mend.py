"""The tool for when something is wrong: recover."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver import Elicit, Resolve
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from parhelia_mcp.mcp_server import consent, wording
from parhelia_mcp.mcp_server.consent import Agreed, Need, ctx_of
from parhelia_mcp.mcp_server.results import answer, cut
from parhelia_mcp.mcp_server.running import made, run
from parhelia_mcp.mcp_server.schema import compact
from parhelia_mcp.store import whole_id
from parhelia_mcp.verbs.recovery import Result

MOST_EVIDENCE = 10
LONGEST = 400  # characters of one fact


async def killing(call: Call, action: str, id: str) -> Need:
    """Whether this ends a session and a person has to agree to that."""
    if action != "kill" or consent.may(call, "kill"):
        return Need()
    refusal = (
        "Ending a session is the person's to decide; nothing was done. "
        f"Next: ask the person to type: parhelia session kill {id} [not-agreed]"
    )
    return Need(question=f"End {id} for good? Its work so far is kept.", refusal=refusal)


async def agree_to_kill(call: Call, need: Annotated[Need, Resolve(killing)]) -> Agreed | Elicit[Agreed]:
    return await consent.ask(call, need)


async def recover(
    call: Call,
    need: Annotated[Need, Resolve(killing)],
    said: Annotated[ElicitationResult[Agreed], Resolve(agree_to_kill)],
    id: Annotated[str, Field(description="Task")],
    action: Annotated[
        Literal["diagnose", "resume", "restart", "kill"],
        Field(description="resume: next session from a checkpoint; restart: from the start; kill: end it for good"),
    ] = "diagnose",
    from_checkpoint: Annotated[str | None, Field(description="resume: cp-...; default: the newest whole one")] = None,
) -> Annotated[CallToolResult, Result]:
    """Why a task failed, hangs or is lost: one cause with its evidence, what is safe, what going on would cost.
    Diagnose first: it changes nothing. resume and restart reserve money like submit; kill keeps the work and stops the cost."""
    from parhelia_mcp.verbs import recover as verb

    consent.granted(need, said)
    if action == "kill":
        whole_id(id)
    request = made(verb.Request, id=id, action=action, from_checkpoint=from_checkpoint)
    result = (await run(verb.run, ctx_of(call), request)).model_dump(mode="json")
    for name in ("evidence", "ruled_out"):
        result[name] = cut(result[name][:MOST_EVIDENCE], LONGEST)
    return answer({**result, **{name: wording.as_call(result[name]) for name in ("next", "fix")}})


def tools() -> list[Tool]:
    annotations = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
    )
    return [compact(Tool.from_function(recover, title="Diagnose and recover", annotations=annotations))]
