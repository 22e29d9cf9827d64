"""The tool about money: budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver import Elicit, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from parhelia_mcp.mcp_server import consent, wording
from parhelia_mcp.mcp_server.consent import Agreed, Need, ctx_of
from parhelia_mcp.mcp_server.results import Budget, answer
from parhelia_mcp.mcp_server.running import made, run
from parhelia_mcp.mcp_server.schema import compact

MOST_TASKS = 10


async def raising(call: Call, action: str, ceiling_usd: float | None) -> Need:
    """Whether this call raises the ceiling and a person has to agree to that."""
    from parhelia_mcp.verbs import budget as verb

    if action != "set" or ceiling_usd is None or consent.may(call, "raise"):
        return Need()
    refusal = await run(verb.raise_refused, ctx_of(call), verb.SetRequest(amount=f"{ceiling_usd:g}"))
    if refusal is None:
        return Need()
    return Need(
        question=f"{refusal.message.partition(';')[0]}. Raise it to ${ceiling_usd:.2f}?",
        refusal=wording.problem(refusal, may_raise=False),
    )


async def agree_to_raise(call: Call, need: Annotated[Need, Resolve(raising)]) -> Agreed | Elicit[Agreed]:
    return await consent.ask(call, need)


async def budget(
    call: Call,
    need: Annotated[Need, Resolve(raising)],
    said: Annotated[ElicitationResult[Agreed], Resolve(agree_to_raise)],
    action: Annotated[
        Literal["show", "set", "estimate", "history"], Field(description="estimate: price sizes before submit")
    ] = "show",
    ceiling_usd: Annotated[
        float | None, Field(ge=0, le=1e9, allow_inf_nan=False, description="set: the new ceiling")
    ] = None,
    gpu: Annotated[str | None, Field(description="estimate: GPU type")] = None,
    cpu: Annotated[float | None, Field(gt=0, le=512, allow_inf_nan=False, description="estimate: cores")] = None,
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False, description="estimate: GiB")] = None,
    hours: Annotated[float | None, Field(gt=0, le=720, allow_inf_nan=False, description="estimate: time limit")] = None,
) -> Annotated[CallToolResult, Budget]:
    """What may be spent, is spent and is held for running sessions; what sizes would cost; where the money went.
    One ceiling over everything is never passed. Lowering it is free; raising it is the person's decision."""
    from parhelia_mcp.verbs import budget as verb
    from parhelia_mcp.verbs import estimate

    ctx = ctx_of(call)
    if action == "set":
        if ceiling_usd is None:
            raise ToolError(
                'set needs ceiling_usd. Nothing was done. Next: budget(action="set", ceiling_usd=25) [argument-missing]'
            )
        may_raise = consent.granted(need, said) or not need.question
        wanted = verb.SetRequest(amount=f"{ceiling_usd:g}")
        return answer(await run(verb.set_ceiling, ctx, wanted, may_raise=may_raise))
    if action == "estimate":
        sizes = made(estimate.Request, gpu=gpu, cpu=cpu, memory=memory, timeout_hours=hours)
        priced = await run(estimate.run, ctx, sizes)
        step = wording.as_call(priced.next, may_raise=consent.may(call, "raise"))
        return answer({**priced.model_dump(mode="json"), "next": step})
    if action == "history":
        return answer(_shortened((await run(verb.history, ctx, verb.HistoryRequest())).model_dump(mode="json")))
    return answer(await run(verb.run, ctx, verb.Request(), most=MOST_TASKS))


def _shortened(history: dict[str, Any]) -> dict[str, Any]:
    """The history with its dearest tasks only."""
    tasks = history["by_task"]
    return {**history, "by_task": tasks[:MOST_TASKS], "omitted": max(0, len(tasks) - MOST_TASKS)}


def tools() -> list[Tool]:
    annotations = ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    return [compact(Tool.from_function(budget, title="Budget", annotations=annotations))]
