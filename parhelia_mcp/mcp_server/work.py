"""The tool that gives work: submit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver import Elicit, Resolve
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from parhelia_mcp.mcp_server import consent, wording
from parhelia_mcp.mcp_server.consent import Agreed, Need, ctx_of
from parhelia_mcp.mcp_server.results import Submitted, answer
from parhelia_mcp.mcp_server.running import made, run
from parhelia_mcp.mcp_server.schema import compact
from parhelia_mcp.model import dollars


def over_budget(call: Call) -> Need:
    """What the ceiling lacks for this call, as a question; the gate itself decides later, in the same transaction."""
    from parhelia_mcp.verbs import submit as verb

    ctx = ctx_of(call)
    given = (call.request_context.params or {}).get("arguments") or {}
    request = made(verb.Request, **given)
    found = verb.shortfall(ctx, request)
    if found is None:
        return Need()
    micro, refusal = found
    cause = refusal.message.removesuffix(" Nothing was reserved.")
    return Need(
        question=f"{cause} Raise the ceiling by ${dollars(micro):.2f} to start this task?",
        refusal=wording.problem(refusal, may_raise=consent.may(call, "raise")),
        micro=micro,
    )


async def agree_to_raise(call: Call, need: Annotated[Need, Resolve(over_budget)]) -> Agreed | Elicit[Agreed]:
    return await consent.ask(call, need)


async def submit(
    call: Call,
    need: Annotated[Need, Resolve(over_budget)],
    said: Annotated[ElicitationResult[Agreed], Resolve(agree_to_raise)],
    prompt: Annotated[
        str | None, Field(description="The whole task, with all it must know; how to check the result")
    ] = None,
    command: Annotated[list[str] | None, Field(description="Run this argv instead of an agent")] = None,
    workspace: Annotated[str | None, Field(description="Directory to copy; default: the project")] = None,
    gpu: Annotated[str | None, Field(description="GPU type (modal), e.g. L4, A10G, H100")] = None,
    cpu: Annotated[float | None, Field(gt=0, le=512, allow_inf_nan=False, description="Cores")] = None,
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False, description="GiB, a limit")] = None,
    timeout_hours: Annotated[
        float | None, Field(gt=0, le=720, allow_inf_nan=False, description="It is ended then, work kept; default 4")
    ] = None,
    max_usd: Annotated[
        float | None,
        Field(ge=0, le=1e9, allow_inf_nan=False, description="Most it may spend, compute and tokens together"),
    ] = None,
    provider: Annotated[Literal["local", "modal"] | None, Field(description="Where; default: the user's")] = None,
    region: Annotated[str | None, Field(description="Region on modal")] = None,
    model: Annotated[str | None, Field(description="Model of the agent")] = None,
    from_checkpoint: Annotated[str | None, Field(description="Fork: start from cp-... instead of a copy")] = None,
    to: Annotated[
        str | None,
        Field(description="Task to say the prompt to instead: sent when live ('allow'/'deny' answers), else resumed"),
    ] = None,
    idempotency_key: Annotated[
        str | None, Field(min_length=1, max_length=200, description="Any unique text; a retry starts nothing twice")
    ] = None,
) -> Annotated[CallToolResult, Submitted]:
    """Hand a task to a separate agent (or command) in a box of its own; returns within seconds, the work goes on.
    Use for what is long, needs a GPU, or can run beside this. Not for what you can do here in minutes.
    It gets the workspace as it is, uncommitted files too, not this conversation. Result: branch parhelia/TASK."""
    from parhelia_mcp.verbs import submit as verb

    given: dict[str, Any] = {name: value for name, value in locals().items() if name in verb.Request.model_fields}
    agreed = need.micro if consent.granted(need, said) else 0
    by_person = consent.may(call, "raise")
    result = await run(verb.run, ctx_of(call), made(verb.Request, **given), agreed=agreed, by_person=by_person)
    return answer({**result.model_dump(mode="json"), "next": wording.as_call(result.next)})


def tools() -> list[Tool]:
    annotations = ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
    )
    return [compact(Tool.from_function(submit, title="Hand over a task", annotations=annotations))]
