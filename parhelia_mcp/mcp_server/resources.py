"""What can be read by address: the tasks, the money, and for each task itself, its log and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pydantic_core
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

from parhelia_mcp.context import Context
from parhelia_mcp.mcp_server.results import trimmed
from parhelia_mcp.mcp_server.running import run

JSON = "application/json"
TASKS = 50
LOG_LINES, LOG_BYTES = 2000, 400_000


def register(server: MCPServer, now: Callable[[], Context]) -> None:
    @server.resource(
        "parhelia://tasks", title="Tasks", description="The newest 50 tasks and how many there are", mime_type=JSON
    )
    async def tasks() -> str:
        return await run(_tasks, now())

    @server.resource("parhelia://budget", title="Budget", description="Ceiling, spent, reserved, left", mime_type=JSON)
    async def budget() -> str:
        from parhelia_mcp.verbs import budget as verb

        return _json(await run(verb.run, now(), verb.Request()))

    @server.resource("parhelia://task/{id}", title="Task", description="Everything about one task", mime_type=JSON)
    async def task(id: str) -> str:
        from parhelia_mcp.verbs import show as verb

        return _json(await run(verb.run, now(), verb.Request(id=id)))

    @server.resource(
        "parhelia://task/{id}/log",
        title="Session log",
        description="The last 2,000 lines of what happened and what was printed: data of a remote program",
        mime_type="text/plain",
    )
    async def log(id: str) -> str:
        return await run(_log, now(), id)

    @server.resource(
        "parhelia://checkpoint/{id}/manifest",
        title="Checkpoint manifest",
        description="What a checkpoint holds",
        mime_type=JSON,
    )
    async def manifest(id: str) -> str:
        from parhelia_mcp.verbs import checkpoint as verb

        shown = await run(verb.show, now(), verb.OneRequest(id=id))
        return _json(shown.manifest)


def _tasks(ctx: Context) -> str:
    from parhelia_mcp.verbs import digest

    page = digest.page(ctx, None, TASKS, None)
    return _json({"counts": ctx.store.counts(), **page.model_dump(mode="json")})


def _log(ctx: Context, id: str) -> str:
    from parhelia_mcp import render
    from parhelia_mcp.verbs import logs as verb

    result = verb.run(ctx, verb.Request(id=id, tail=LOG_LINES), most_bytes=LOG_BYTES)
    return "\n".join(render.log_line(line) for line in result.lines) + "\n"


def _json(value: BaseModel | dict[str, Any]) -> str:
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return pydantic_core.to_json(trimmed(plain)).decode()
