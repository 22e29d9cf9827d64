"""The MCP server beside an empty one of the same SDK: start to the list of tools, and the median call."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import Row, at_most, medians
from tests.front import SERVER, Front

EMPTY = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("empty", log_level="WARNING")
@server.tool()
async def nothing() -> dict[str, int]:
    "Do nothing."
    return {"done": 1}
server.run()
"""
ROUNDS, CALLS = 12, 300
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}


class Talk:
    """A server on pipes, opened as far as its list of tools."""

    def __init__(self, argv: list[str], front: Front) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd=front.cwd, env=front.env
        )
        self.number = 0
        self.ask("initialize", HELLO)
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.ask("tools/list", {})

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdout is not None
        self.number += 1
        self._send({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        return json.loads(self.process.stdout.readline())

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it the same way whatever it is: how a server leaves is no part of how it starts."""
        self.process.kill()
        self.process.communicate()


def rows(workdir: Path) -> list[Row]:
    front = Front(workdir)
    try:
        front.repository()
        front.run("run", "--", "true")
        task = front.json("list")["tasks"][0]["task_id"]
        (workdir / "empty.py").write_text(EMPTY)
        empty = [sys.executable, str(workdir / "empty.py")]
        took = medians({"empty": _started(empty, front), "ours": _started([SERVER], front)}, ROUNDS)
        start = at_most(
            "MCP: start to tools/list, beside an empty server of the SDK", took["ours"] / took["empty"], "x", 1.15
        )
        calls = {"budget": {}, "status": {"id": task}, "logs": {"id": task, "tail": 20}}
        return [start, *_calls(empty, front, calls)]
    finally:
        front.close()


def _started(argv: list[str], front: Front) -> Callable[[], object]:
    return lambda: Talk(argv, front).close()


def _calls(empty: list[str], front: Front, calls: dict[str, dict[str, Any]]) -> list[Row]:
    """The median of each call beside the one that does nothing, taken in turn."""
    other, ours = Talk(empty, front), Talk([SERVER], front)
    try:
        asked = {"nothing": (other, {}), **{name: (ours, given) for name, given in calls.items()}}
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(CALLS):
            for name, (server, given) in asked.items():
                began = time.perf_counter()
                said = server.ask("tools/call", {"name": name, "arguments": given})
                seconds[name].append(time.perf_counter() - began)
                assert not said["result"].get("isError"), said
        median = {name: statistics.median(values[CALLS // 10 :]) for name, values in seconds.items()}
        return [
            at_most(f"MCP: {name}, median beside a call that does nothing", median[name] / median["nothing"], "x", 1.5)
            for name in calls
        ]
    finally:
        other.close()
        ours.close()
