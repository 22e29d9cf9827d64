"""Verbs run in threads: a slow one must not hold the connection, and a cancelled call leaves it to end by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ValidationError

from parhelia_mcp.mcp_server import wording

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)


async def run(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    return await anyio.to_thread.run_sync(partial(function, *arguments, **named), abandon_on_cancel=True)


def made(request: type[R], **values: Any) -> R:
    """The Request from what was given. Raises ToolError in a model's words."""
    try:
        return request(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as problem:
        raise ToolError(wording.arguments(problem)) from None
