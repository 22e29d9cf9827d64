"""Serving standard input and output, and ending: at the end of input or at once on a signal.

The SDK keeps the wire on descriptors of its own while descriptor 1 is standard error, so that nothing a library prints
reaches the client. What it leaves open is closed here: it does not end on SIGINT, and it never answers a line that its
parser refuses.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.mcp_server.server import Server, build

LEAVE_S = 0.05  # what open calls get to end by themselves on a signal
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_VALUE = re.compile(r'\s*:\s*(-?\d{1,18}|"[^"\\]{0,200}")')


def serve(wire: int) -> None:
    """Serve until the input ends or a signal says so. `wire` is the client's end while descriptor 1 is standard error."""
    logging.basicConfig(level=logging.WARNING)
    try:
        server = build(Context())
    except Problem as problem:
        sys.exit(f"parhelia mcp: {problem}")
    os.dup2(wire, 1)
    os.close(wire)
    anyio.run(_serve, server)


async def _serve(server: Server) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_until_signal, group.cancel_scope)
        async with stdio_server() as (incoming, outgoing):
            readable, taken = anyio.create_memory_object_stream[Any](0)
            group.start_soon(_sift, incoming, readable, outgoing)
            low = server._lowlevel_server
            await low.run(taken, outgoing, low.create_initialization_options())
        os._exit(0)  # a verb may still run in a thread; what it does is safe to leave


async def _until_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(LEAVE_S)
            os._exit(0)


async def _sift(incoming: Any, readable: MemoryObjectSendStream[Any], outgoing: Any) -> None:
    """Pass messages on; answer what is none, where it has an id to answer to."""
    async with readable:
        async for item in incoming:
            if not isinstance(item, Exception):
                await readable.send(item)
            elif (refusal := refused(item)) is not None:
                await outgoing.send(SessionMessage(refusal))


def refused(problem: Exception) -> JSONRPCError | None:
    """The answer to a line that is no message, or None where nobody waits for one."""
    found = problem.errors(include_url=False) if isinstance(problem, ValidationError) else []
    broken = next((each for each in found if each["type"] == "json_invalid"), None)
    if broken is not None:
        name = _top_level_id(str(broken["input"]))
    else:
        name = next((each["input"].get("id") for each in found if isinstance(each["input"], dict)), None)
    if isinstance(name, bool) or not isinstance(name, int | str):
        return None
    if broken is None:
        error = ErrorData(code=INVALID_REQUEST, message="This is no JSON-RPC request.")
    else:
        error = ErrorData(code=PARSE_ERROR, message=f"This line is no JSON that can be read: {broken['msg'][:200]}.")
    return JSONRPCError(jsonrpc="2.0", id=name, error=error)


def _top_level_id(line: str) -> int | str | None:
    depth = 0
    for token in _TOKEN.finditer(line):
        text = token[0]
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text, 0)
        if depth == 1 and text == '"id"' and (value := _VALUE.match(line, token.end())):
            return value[1].strip('"') if value[1].startswith('"') else int(value[1])
    return None
