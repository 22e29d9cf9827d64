"""Talking to the server: in memory through the SDK's client, in both eras of the protocol, and line by line on stdio."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp import Client
from mcp_types import ElicitResult

from parhelia_mcp.context import Context
from parhelia_mcp.mcp_server.server import Server, build
from tests.front import SERVER, Front

ERAS = ("legacy", "auto")


class Refused(Exception):
    """What a model reads when a call fails."""


def server_of(front: Front) -> Server:
    return build(Context(front.env, front.cwd))


def talk(server: Server, story: Callable[[Client], Awaitable[Any]], *, era: str = "legacy", person: str = "") -> Any:
    """Run a conversation. `person` answers what is asked: accept, decline, cancel; "" is a client without forms."""

    async def answers(_: Any, asked: Any) -> ElicitResult:
        story.__dict__.setdefault("asked", []).append(asked.message)
        return ElicitResult(action=person, content={"agree": True} if person == "accept" else None)

    async def conversation() -> Any:
        async with Client(server, mode=era, elicitation_callback=answers if person else None) as client:
            try:
                with anyio.fail_after(60):
                    return await story(client), None
            except Exception as problem:  # noqa: BLE001 - raised again outside of the client's task groups
                return None, problem

    got, problem = anyio.run(conversation)
    if problem is not None:
        raise problem
    return got


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """What the model reads: the structured object, or the text where there is none. Raises Refused."""
    result = await client.call_tool(tool, arguments)
    text = result.content[0].text if result.content else ""
    if result.is_error:
        raise Refused(text)
    if result.structured_content is not None:
        assert json.loads(text) == result.structured_content
        assert not nulls(result.structured_content), text
    return result.structured_content if result.structured_content is not None else text


def nulls(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(nulls, value.values() if isinstance(value, dict) else value))
    return value is None


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The text of the refusal; fails where there is none."""
    try:
        got = await call(client, tool, **arguments)
    except Refused as problem:
        return str(problem)
    raise AssertionError(f"not refused: {got}")


class Wire:
    """The installed server as a process, spoken to in lines. Every line it writes must be a JSON-RPC message."""

    def __init__(self, front: Front, *argv: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            list(argv) or [SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=front.cwd,
            env={**front.env, **environment},
        )
        self.answers: dict[Any, dict[str, Any]] = {}
        self.notes: list[dict[str, Any]] = []
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def send(self, raw: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(raw + b"\n")
        self.process.stdin.flush()

    def request(self, id: Any, method: str, **params: Any) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode())

    def call(self, number: Any, tool: str, /, **arguments: Any) -> None:
        self.request(number, "tools/call", name=tool, arguments=arguments, _meta={"progressToken": f"p{number}"})

    def notify(self, method: str, **params: Any) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def open(self) -> Wire:
        self.request(
            0, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t", "version": "1"}
        )
        self.answer(0)
        self.notify("notifications/initialized")
        return self

    def answer(self, id: Any, within: float = 20) -> dict[str, Any]:
        """The answer to a request, whatever else arrives before it."""
        deadline = time.monotonic() + within
        while id not in self.answers:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no answer to {id} within {within} s") from None
            if not line:
                raise AssertionError(f"the server ended; {self.errors()}")
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0", message
            if "method" in message:
                self.notes.append(message)
            else:
                self.answers[message["id"]] = message
        return self.answers[id]

    def silent(self, id: Any, for_s: float) -> bool:
        """Whether a request stays without an answer for so long."""
        try:
            self.answer(id, within=for_s)
        except AssertionError:
            return True
        return False

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode(errors="replace")[-2000:] if self.process.poll() is not None else ""

    def end(self, signal: int | None = None) -> float:
        """Seconds until it has ended: by a signal, or because its input ends."""
        assert self.process.stdin is not None
        began = time.monotonic()
        if signal is None:
            self.process.stdin.close()
        else:
            os.kill(self.process.pid, signal)
        self.process.wait(timeout=20)
        return time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
