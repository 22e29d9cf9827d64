"""What a script is made of: replies, and the requests that they answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SMALL = {"input_tokens": 10, "output_tokens": 5}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived. Header names are in lower case; `body` is None where there is no JSON."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    at: float  # time.time()

    @property
    def body(self) -> Any:
        return json.loads(self.raw) if self.raw else None

    @property
    def token(self) -> str | None:
        """The secret that came with it, from either header."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return self.headers.get("x-api-key") or bearer or None

    @property
    def agent(self) -> str | None:
        """The subagent it came from; None for the main agent."""
        return self.headers.get("x-claude-code-agent-id")


def from_main(request: Request) -> bool:
    return request.agent is None


def from_subagent(request: Request) -> bool:
    return request.agent is not None


def with_token(token: str) -> Callable[[Request], bool]:
    return lambda request: request.token == token


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `say(...) + use(...)` joins the content of two; `reply.but(...)` changes the rest."""

    blocks: tuple[Mapping[str, Any], ...] = ()
    usage: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    stop_reason: str | None = None  # None: tool_use, end_turn, or max_tokens when the request's limit cuts it
    when: Callable[[Request], bool] | None = None
    times: int = 1  # how many requests it answers; 0: any number
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    delay_s: float = 0.0  # before the first byte
    gate: threading.Event | None = None  # nothing is sent before it is set
    pace_s: float = 0.0  # between two events of a stream
    cut_after: int | None = None  # the connection breaks after so many events of a stream; a JSON answer is whole
    split: int | None = None  # a stream is written in pieces of so many bytes, wherever they fall

    def but(self, **changes: Any) -> Reply:
        return replace(self, **changes)

    def __add__(self, other: Reply) -> Reply:
        return replace(self, blocks=self.blocks + other.blocks)

    def bill(self, limit: int) -> dict[str, Any]:
        """What the answer counts: output is cut at the request's max_tokens, as the real API does."""
        return {**self.usage, "output_tokens": min(self.usage["output_tokens"], limit)}

    def stopped_by(self, usage: Mapping[str, Any]) -> str:
        if self.stop_reason:
            return self.stop_reason
        if usage["output_tokens"] < self.usage["output_tokens"]:
            return "max_tokens"
        return "tool_use" if any(block["type"] == "tool_use" for block in self.blocks) else "end_turn"


def say(text: str) -> Reply:
    return Reply(({"type": "text", "text": text},))


def use(tool: str, **arguments: Any) -> Reply:
    return Reply(({"type": "tool_use", "name": tool, "input": arguments},))


def fail(status: int, kind: str, message: str, *, retry: bool = False) -> Reply:
    """An error; without `retry` with the header that tells the client to leave it."""
    headers = {} if retry else {"x-should-retry": "false"}
    return Reply(status=status, headers=headers, error={"type": kind, "message": message})


def message(reply: Reply, request: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The whole message object of the API."""
    usage = reply.bill(request["max_tokens"])
    blocks = [
        {"id": f"toolu_{number:04}_{index}", **block} if block["type"] == "tool_use" else dict(block)
        for index, block in enumerate(reply.blocks)
    ]
    return {
        "id": f"msg_{number:04}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": blocks,
        "stop_reason": reply.stopped_by(usage),
        "stop_sequence": None,
        "usage": usage,
    }


def events(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same message as the events of a stream; its end carries only the output, as the real one may."""
    usage = whole["usage"]
    early = {key: value for key, value in usage.items() if key != "server_tool_use"} | {"output_tokens": 1}
    late = {key: usage[key] for key in ("output_tokens", "server_tool_use") if key in usage}
    start = {**whole, "content": [], "stop_reason": None, "usage": early}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "tool_use":
            empty = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            empty = {**block, "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": late}
    yield {"type": "message_stop"}
