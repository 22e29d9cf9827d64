"""The control sockets: one JSON line in, one out. The controller's takes every op, the agent's only what is harmless."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from parhelia_mcp.errors import Problem, Usage

LONGEST = 16 << 20  # bytes of a request: a message of a million characters fits, escaped
Op = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def listen(path: Path) -> anyio.abc.SocketListener:
    """A socket at `path` that may be connected to from now on."""
    return await anyio.create_unix_listener(path, mode=0o600)


async def serve(listener: anyio.abc.SocketListener, ops: Mapping[str, Op]) -> None:
    """Answer requests until cancelled."""
    async with listener:
        await listener.serve(lambda stream: _converse(stream, ops))


async def _converse(stream: anyio.abc.SocketStream, ops: Mapping[str, Op]) -> None:
    async with stream:
        lines = BufferedByteReceiveStream(stream)
        while True:
            try:
                line = await lines.receive_until(b"\n", LONGEST)
                await stream.send(json.dumps(await answer(line, ops), default=str).encode() + b"\n")
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
                return  # the other side has left


async def answer(line: bytes, ops: Mapping[str, Op]) -> dict[str, Any]:
    """The answer to one request. A bad request is an answer too."""
    number = None
    try:
        try:
            request = json.loads(line)
            number, op, args = request.get("id"), request["op"], request.get("args") or {}
        except (ValueError, KeyError, AttributeError):
            raise Usage("bad-request", "A request is {id, op, args} on one line of JSON.") from None
        if op not in ops or not isinstance(args, dict):
            raise Usage("unknown-op", f"{str(op)[:40]!r} is not one of: {', '.join(sorted(ops))}.")
        try:
            return {"id": number, "ok": True, "result": await ops[op](args)}
        except (KeyError, TypeError, ValueError) as problem:
            raise Usage("bad-request", f"{op}: {type(problem).__name__} {problem}") from None
    except Problem as problem:
        return {"id": number, "ok": False, "error": problem.as_dict()}
