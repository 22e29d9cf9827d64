"""The web server on loopback that the meter is, and which headers cross it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import uvicorn
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

DROPPED = frozenset(  # hop by hop, or for each side to say for itself
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade"
    b" host content-length accept-encoding content-encoding authorization x-api-key cookie".split()
)
STOP_S = 5.0


class Server(uvicorn.Server):
    """uvicorn inside a task of ours: signals stay the runner's, and it says when it listens."""

    def __init__(self, app: Any, started: Callable[[], None]) -> None:
        quiet = {"log_config": None, "log_level": "critical", "access_log": False}
        plain = {"http": "h11", "ws": "none", "lifespan": "off", "date_header": False, "server_header": False}
        super().__init__(uvicorn.Config(app, timeout_keep_alive=600, **quiet, **plain))
        self._started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._started()

    async def stop(self) -> None:
        """Close every connection, also when the caller has been cancelled."""
        self.force_exit = True
        with anyio.move_on_after(STOP_S, shield=True):
            await self.shutdown()


def listening(port: int) -> socket.socket:
    """A socket on 127.0.0.1; one that says it is TCP, for only on such does asyncio send small parts at once."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


def passed_on(headers: Iterable[tuple[bytes, bytes]], *but: bytes) -> list[tuple[bytes, bytes]]:
    """The headers that belong to the message and not to one of the two connections."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in lower if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in lower if name not in DROPPED and name not in named and name not in but]


def token_of(request: Request) -> bytes:
    """The secret that a request came with, in either header."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return (bearer or request.headers.get("x-api-key", "")).encode()


def betas_of(request: Request) -> str:
    return ",".join(request.headers.getlist("anthropic-beta"))


def refusal(status: int, kind: str, message: str, *, retry: bool = False) -> Response:
    """An error in the API's own form; the client repeats it only with `retry`."""
    headers = {} if retry else {"x-should-retry": "false"}
    return JSONResponse({"type": "error", "error": {"type": kind, "message": message}}, status, headers)


async def chunks(receiver: ObjectReceiveStream[bytes]) -> AsyncIterator[bytes]:
    """The parts of a reply; an empty one is its end. Without it the connection breaks, as the upstream's did."""
    with receiver:
        async for data in receiver:
            if not data:
                return
            yield data
    raise ConnectionAbortedError("the upstream broke off")


async def hand(sender: ObjectSendStream[bytes], data: bytes) -> None:
    """Pass a part on, if anybody still wants it."""
    try:
        await sender.send(data)
    except anyio.BrokenResourceError:
        return
