"""The lines between us and Claude Code: what is said to it, what it says, and the receipts it owes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream

from parhelia_mcp.errors import Unreachable


@dataclass(slots=True)
class Receipt:
    """The client's word that it took a line in; that the line was written proves nothing."""

    done: anyio.Event = field(default_factory=anyio.Event)
    delivered: bool = False

    def acknowledge(self) -> None:
        self.delivered = True
        self.done.set()

    async def wait(self) -> None:
        """Return when it is acknowledged. Raises Unreachable `agent-gone` when the client ended before."""
        await self.done.wait()
        if not self.delivered:
            raise gone()


def gone() -> Unreachable:
    return Unreachable("agent-gone", "Claude Code ended before it took the message.", "parhelia status")


def message(key: str, text: str) -> dict[str, Any]:
    """What the user says. A client that knows `key` already acknowledges the message and does nothing else."""
    return {"type": "user", "uuid": key, "message": {"role": "user", "content": text}}


def control_response(id: str, response: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "control_response", "response": {**response, "request_id": id}}


def acknowledged(event: Mapping[str, Any]) -> str | None:
    """The key of the message, or the id of the request, whose receipt the event is."""
    if event.get("type") == "user" and event.get("isReplay"):
        return str(event.get("uuid"))
    if event.get("type") == "control_response":
        return str((event.get("response") or {}).get("request_id"))
    return None


def event_in(line: bytes) -> dict[str, Any]:
    """The event that a line holds; empty for anything else."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


async def lines(source: ByteReceiveStream) -> AsyncIterator[bytes]:
    """Every line without its newline, however long; what comes after the last newline is left out."""
    parts: list[bytes] = []
    async for data in source:
        *whole, rest = data.split(b"\n")
        for end in whole:
            yield b"".join([*parts, end])
            parts.clear()
        parts.append(rest)
