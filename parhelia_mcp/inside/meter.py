"""The reverse proxy in front of the Messages API: the agent has its address and a token, never the key.

A request is forwarded only after the most it can cost has been reserved on the disk, so the cap is never passed. What
does not fit at once waits while others settle, is then made smaller, and is refused when even that does not fit. A
reply is passed on as it comes; it is read to its end even when the agent has gone, because only its end has the price.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2 as httpx
from anyio.abc import TaskStatus
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from parhelia_mcp.inside import bounds
from parhelia_mcp.inside.book import Book
from parhelia_mcp.inside.loopback import Server, betas_of, chunks, hand, listening, passed_on, refusal, token_of
from parhelia_mcp.inside.usage import UsageReader, counts, tokens_in
from parhelia_mcp.model import dollars
from parhelia_mcp.prices import cost_micro

LEAST_TOKENS = 256  # a reply cut below this is of no use: refuse instead
LEAST_BESIDE_OTHERS = 16_000  # while others are in flight a request waits rather than be cut below this
OAUTH_BETA = "oauth-2025-04-20"
TIMEOUT = httpx.Timeout(connect=30, read=900, write=120, pool=None)
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the upstream wants to see."""

    kind: str  # "api-key" | "oauth" | "none"
    value: str = field(repr=False)

    def headers(self, betas: str) -> list[tuple[bytes, bytes]]:
        """The headers that authenticate, and the betas, to which OAuth adds its own."""
        if self.kind == "oauth" and OAUTH_BETA not in betas.split(","):
            betas = f"{betas},{OAUTH_BETA}".lstrip(",")
        own = {
            "oauth": [(b"authorization", b"Bearer " + self.value.encode())],
            "api-key": [(b"x-api-key", self.value.encode())],
        }
        return own.get(self.kind, []) + ([(b"anthropic-beta", betas.encode())] if betas else [])


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that was paid for in advance."""

    number: int  # of its reservation
    bound: int
    ask: bounds.Ask
    max_tokens: int
    model: str

    def price(self, reader: UsageReader) -> int:
        """What it costs by the counts that arrived; by their absence, the most it can have cost."""
        if reader.final:
            return cost_micro(reader.usage, self.ask.price)
        if not reader.usage or self.ask.searches:
            return self.bound
        return min(self.bound, cost_micro({**reader.usage, "output_tokens": self.max_tokens}, self.ask.price))


class Meter:
    """One session's meter. `exhausted` is set when a request was refused for money."""

    def __init__(
        self,
        *,
        upstream: str,
        credential: Credential,
        token: str,
        book: Path,
        cap_micro: int | None,
        prices: Mapping[str, Any],
        emit: Callable[..., None],
    ) -> None:
        self.port = 0
        self.last_call_at: float | None = None  # time.monotonic() of the last request or end of a reply
        self.exhausted = anyio.Event()
        self._upstream = upstream.rstrip("/")
        self._credential = credential
        self._token = token.encode()
        self._prices = prices
        self._emit = emit
        self._book = Book(book, cap_micro)
        self._seen = bounds.Beginnings()
        self._settled = anyio.Event()
        self._held = 0

    @property
    def spent_micro(self) -> int:
        return self._book.spent_micro

    @property
    def reserved_micro(self) -> int:
        return self._book.reserved_micro

    @property
    def cap_micro(self) -> int | None:
        """What the session may spend, without what was taken out; None without a cap."""
        return self._book.cap_micro

    def hold(self, micro: int) -> None:
        """Take money out of what the session may spend, for another; a negative amount gives it back. Raises NoRoom."""
        self._book.hold(micro)

    @property
    def in_flight(self) -> int:
        """Requests for a message that wait for room or for their reply."""
        return self._held + self._book.open

    async def serve(self, *, port: int = 0, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve on 127.0.0.1 until cancelled; what is in flight then is charged as far as it is not known.

        Charges that the book already held are emitted again first: their keys say which ones they are.
        """
        for entry in self._book.closed:
            self._report(entry)
        listener = listening(port)
        self.port = listener.getsockname()[1]
        server = Server(self, lambda: task_status.started(self.port))
        async with httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(keepalive_expiry=5)) as self._client:
            try:
                async with anyio.create_task_group() as self._tasks:
                    await server.serve(sockets=[listener])
            finally:
                await server.stop()
                listener.close()
                self._book.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        response = await self._route(Request(scope, receive))
        await response(scope, receive, send)

    async def _route(self, request: Request) -> Response:
        door = f"{request.method} {request.url.path}"
        if door == "HEAD /":
            return Response()
        if not hmac.compare_digest(token_of(request), self._token):
            return refusal(401, "authentication_error", "this is not the token of the session")
        self.last_call_at = time.monotonic()
        if door == "POST /v1/messages":
            return await self._message(request)
        if door == "POST /v1/messages/count_tokens":  # costs nothing
            return await self._forward(request, await request.body(), None)
        return refusal(404, "not_found_error", f"the meter does not pass on {door}")

    async def _message(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            raw = bounds.as_sent(body)
            ask = bounds.ask(body, raw, betas_of(request), self._seen, self._prices)
        except bounds.Unpriced as unpriced:
            return refusal(
                400, "invalid_request_error", f"Parhelia: {unpriced} has no price, so it cannot be used here."
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return refusal(400, "invalid_request_error", "this is not a valid request for a message")
        self._held += 1
        try:
            size = await self._room(request, ask)
            if not size:
                self.exhausted.set()
                return self._poor(ask)
            bound = ask.bound(*size)
            if size != (ask.max_tokens, ask.searches):
                raw = bounds.as_sent(bounds.lowered(body, *size))
            model = str(body["model"])
            call = _Call(self._book.reserve(bound, model), bound, ask, size[0], model)
        finally:
            self._held -= 1
        return await self._forward(request, raw, call)

    async def _room(self, request: Request, ask: bounds.Ask) -> tuple[int, int] | None:
        """How large the request may be, once there is money for it; None when there will be none."""
        while True:
            others, left = self._book.reserved_micro, self._book.left_micro
            size = ask.fitting(left, LEAST_BESIDE_OTHERS if others else LEAST_TOKENS)
            if size or left is None or not others or not ask.fitting(left + others, LEAST_TOKENS):
                return size
            await self._settled.wait()
            if await request.is_disconnected():
                raise ClientDisconnect

    def _poor(self, ask: bounds.Ask) -> Response:
        least = ask.bound(min(LEAST_TOKENS, ask.max_tokens), min(ask.searches, 1))
        cap, spent, least = (
            f"${dollars(micro):.2f}" for micro in (self._book.cap_micro or 0, self._book.spent_micro, least)
        )
        text = (
            f"Parhelia: this session may spend {cap} on tokens; {spent} is spent and the next request may cost {least}."
        )
        return refusal(402, "billing_error", text)

    async def _forward(self, request: Request, raw: bytes, call: _Call | None) -> Response:
        """The upstream's answer as it comes; a task of its own reads it to the end."""
        query = request.scope["query_string"].decode("latin-1")
        url = self._upstream + request.url.path + (f"?{query}" if query else "")
        headers = passed_on(request.headers.raw, b"anthropic-beta") + self._credential.headers(betas_of(request))
        headers.append((b"accept-encoding", b"identity"))  # compressed counts could not be read in passing
        outgoing = self._client.build_request(request.method, url, headers=headers, content=raw)
        return await self._tasks.start(self._exchange, outgoing, call)

    async def _exchange(
        self, outgoing: httpx.Request, call: _Call | None, *, task_status: TaskStatus[Response]
    ) -> None:
        """Send the request and settle what it cost, whatever becomes of it or of the agent that asked."""
        reader, billed, whole = UsageReader(""), True, False
        sender, receiver = anyio.create_memory_object_stream[bytes](64)
        with sender:
            try:
                reply = await self._client.send(outgoing, stream=True)
                async with aclosing(reply):
                    billed = reply.status_code == 200
                    reader = UsageReader(reply.headers.get("content-type", ""))
                    response = StreamingResponse(chunks(receiver), reply.status_code)
                    response.raw_headers = passed_on(reply.headers.raw)
                    task_status.started(response)
                    task_status = anyio.TASK_STATUS_IGNORED
                    async for data in reply.aiter_bytes():
                        reader.feed(data)
                        await hand(sender, data)
                reader.end()
                whole = True
            except httpx.HTTPError as problem:
                billed = billed and not isinstance(problem, NEVER_SENT)
                text = f"Parhelia: no answer from {outgoing.url.host}: {problem or type(problem).__name__}"
                task_status.started(refusal(502, "api_error", text, retry=True))
            finally:
                if call:
                    self._settle(call, reader, billed)
            if whole:
                await hand(sender, b"")

    def _settle(self, call: _Call, reader: UsageReader, billed: bool) -> None:
        micro = call.price(reader) if billed else 0
        detail = {"model": call.model, "estimated": billed and not reader.final, **counts(reader.usage)}
        entry = self._book.settle(call.number, micro, detail)
        if reader.final and not call.ask.searches:
            self._seen.remember(call.ask, tokens_in(reader.usage))
        self._settled.set()
        self._settled = anyio.Event()
        self.last_call_at = time.monotonic()
        self._report(entry)

    def _report(self, entry: Mapping[str, Any]) -> None:
        detail = {name: value for name, value in entry.items() if name not in ("close", "micro")}
        self._emit("usage", key=f"m{entry['close']}", micro_usd=entry["micro"], **{**counts({}), **detail})
