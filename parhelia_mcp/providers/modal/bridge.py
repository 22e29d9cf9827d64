"""From synchronous calls with a deadline to the SDK's coroutines: one background event loop for the process.

A call returns or raises by its deadline even while the SDK hangs: the SDK itself would wait for ever on a network
that swallows packets. What is started with `begin` goes on behind the caller's back.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from parhelia_mcp.errors import Unreachable
from parhelia_mcp.providers.modal.failures import translate

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]
LEAVE_S = 1.0  # what calls under way get to end when the process does
_START = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _START:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="modal", daemon=True).start()
        return _loop


def call(work: Work[T], deadline: float, what: str) -> T:
    """The result of `work`, cancelled at the deadline. Raises only Problem; `what` says it in a sentence."""
    return wait(begin(work), deadline, what, cancel=True)


def begin(work: Work[T]) -> Future[T]:
    """Start `work` and let it go on; its errors are ours already."""
    return asyncio.run_coroutine_threadsafe(_translated(work), _running_loop())


def wait(future: Future[T], deadline: float, what: str, *, cancel: bool) -> T:
    """The result of `future`. Raises Unreachable `provider-timeout` at the deadline."""
    try:
        return future.result(max(deadline, 0.0))
    except FutureTimeout:
        raise Unreachable(
            "provider-timeout",
            f"Modal did not {what} within {deadline:g} s; what is there stays as it is.",
            "parhelia doctor, or try again",
        ) from None
    finally:
        if cancel and not future.done():
            future.cancel()


def raisable() -> tuple[type[Exception], ...]:
    """What a call of the SDK may raise: its own, the system's, and what its libraries let through."""
    from aiohttp import ClientError
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
    from modal import exception

    _leave_in_order()
    own = (exception.Error, exception.ModuleNotMountable, Warning)
    return (*own, OSError, TimeoutError, ClientError, GRPCError, ProtocolError, StreamTerminatedError)


@cache
def _leave_in_order() -> None:
    """Have what is still under way cancelled at exit, before the SDK takes its own loop down under it.

    Exit handlers run in reverse: this one must be registered after the SDK's, so after it is imported.
    """
    atexit.register(_cancel_all)


def _cancel_all() -> None:
    logging.getLogger("asyncio").disabled = True  # what the SDK leaves undone then is no failure of the command

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=LEAVE_S)

    with suppress(FutureTimeout):
        asyncio.run_coroutine_threadsafe(cancel(), _running_loop()).result(LEAVE_S + 0.5)


async def _translated(work: Work[T]) -> T:
    """`work` with errors of ours. Importing the SDK here, not in the caller's thread, keeps its deadline."""
    known = raisable()
    try:
        return await work()
    except known as raised:
        raise translate(raised) from raised
