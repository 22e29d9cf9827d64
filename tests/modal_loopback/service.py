"""From plain methods to gRPC services: one adapter that applies faults and notes what was called or is missing."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpclib import GRPCError, Status
from grpclib.server import Stream

from tests.modal_loopback.faults import Faults


class Calls:
    """How often each RPC was called, and which had no implementation."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.unimplemented: set[str] = set()


def build(base: type, parts: tuple[object, ...], faults: Faults, calls: Calls) -> Any:
    """A servicer of `base` whose methods are the methods of `parts` that carry an RPC's name.

    A coroutine answers once, an async generator streams. Its argument is the request; an RPC that streams to the
    server gets the iterator of its requests (the method says so by the argument's name, `requests`).
    """
    methods = {}
    for name in base.__abstractmethods__:
        found = next((getattr(part, name) for part in parts if hasattr(part, name)), None)
        methods[name] = _adapter(name, found, faults, calls)
    return type("Loopback" + base.__name__, (base,), methods)()


def _adapter(name: str, method: Callable[..., Any] | None, faults: Faults, calls: Calls) -> Callable[..., Any]:
    async def handle(_self: object, stream: Stream[Any, Any]) -> None:
        calls.seen[name] += 1
        if method is None:
            calls.unimplemented.add(name)
            raise GRPCError(Status.UNIMPLEMENTED, f"{name} is not part of the loopback")
        fault = faults.take(name)
        await fault.before()
        incoming: Any = _requests(stream) if "requests" in inspect.signature(method).parameters else None
        if incoming is None:
            incoming = await stream.recv_message()
        answer = method(incoming)
        if inspect.isasyncgen(answer):
            async for part in answer:
                fault.count_message()
                await stream.send_message(part)
            await fault.after()
            return
        try:
            reply = await answer
        finally:
            await fault.after()
        await stream.send_message(reply)

    return handle


async def _requests(stream: Stream[Any, Any]) -> AsyncIterator[Any]:
    async for message in stream:
        yield message
