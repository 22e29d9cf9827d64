"""Other people's clients and suites against the installed server: all of them see the same six tools working."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

from tests import setup
from tests.front import SERVER, Front
from tests.mcp.talk import ERAS, call

NPM, PYTHON = setup.mcp_peers()

TYPESCRIPT = """
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
const client = new Client({ name: "test", version: "1" });
await client.connect(new StdioClientTransport({ command: process.argv[2], env: process.env, cwd: process.cwd() }));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const given = await client.callTool({ name: "submit", arguments: { command: ["echo", "hello"] } });
const shown = await client.callTool({ name: "status", arguments: { id: given.structuredContent.task_id, wait_s: 5 } });
const logs = await client.callTool({ name: "logs", arguments: { id: given.structuredContent.task_id } });
const bad = await client.callTool({ name: "budget", arguments: { colour: "red" } });
const read = await client.readResource({ uri: "parhelia://budget" });
console.log(JSON.stringify({ tools, state: shown.structuredContent.state, logs: logs.content[0].text, bad, read }));
await client.close();
"""
FASTMCP = """
import asyncio, json, os, sys
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
async def main():
    async with Client(StdioTransport(sys.argv[1], [], env=dict(os.environ), cwd=os.getcwd())) as client:
        tools = [tool.name for tool in await client.list_tools()]
        given = (await client.call_tool("submit", {"command": ["echo", "hello"]})).structured_content
        shown = (await client.call_tool("status", {"id": given["task_id"], "wait_s": 5})).structured_content
        logs = (await client.call_tool("logs", {"id": given["task_id"]})).content[0].text
        bad = await client.call_tool("budget", {"colour": "red"}, raise_on_error=False)
        read = json.loads((await client.read_resource("parhelia://budget"))[0].text)
        print(json.dumps({"tools": tools, "state": shown["state"], "logs": logs, "bad": bad.content[0].text, "read": read}))
asyncio.run(main())
"""


def program(front: Front, *argv: str, code: int = 0) -> str:
    """Run a client as this user and hold it to its exit code."""
    env = {**front.env, "PATH": f"{NPM / '.bin'}:{os.environ['PATH']}"}
    done = subprocess.run(argv, cwd=front.cwd, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.parametrize("era", ERAS)
def test_the_python_client_over_stdio(front: Front, era: str) -> None:
    async def story() -> None:
        parameters = StdioServerParameters(command=SERVER, env=front.env, cwd=front.cwd)
        async with Client(parameters, mode=era) as client:
            given = await call(client, "submit", command=["echo", "hello"])
            shown = await call(client, "status", id=given["task_id"], wait_s=5)
            assert shown["task_id"] == given["task_id"]

    anyio.run(story)


def test_the_typescript_client(front: Front, tmp_path: Path) -> None:
    script = tmp_path / "client.mjs"
    script.write_text(TYPESCRIPT)
    (tmp_path / "node_modules").symlink_to(NPM)
    seen = json.loads(program(front, str(NPM / ".bin" / "node"), str(script), SERVER))
    held(seen, seen["bad"]["content"][0]["text"])
    assert seen["bad"]["isError"] is True


def test_the_fastmcp_client(front: Front, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(FASTMCP)
    seen = json.loads(program(front, str(PYTHON / "bin" / "python"), str(script), SERVER).splitlines()[-1])
    held(seen, seen["bad"])


def held(seen: dict, bad: str) -> None:
    assert {"submit", "status", "logs", "checkpoint", "budget"} <= set(seen["tools"])
    assert seen["state"] in ("starting", "running", "completed")
    assert "next_cursor=" in seen["logs"]
    assert 'There is no argument "colour"' in bad
    assert "25" in json.dumps(seen["read"])


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_finds_nothing_to_say(front: Front, era: str) -> None:
    inspect = (str(NPM / ".bin" / "mcp-inspector"), "--cli", SERVER, "--protocol-era", era)
    listed = json.loads(program(front, *inspect, "--method", "tools/list", "--strict"))
    assert len(listed["tools"]) >= 5
    called = program(front, *inspect, "--method", "tools/call", "--tool-name", "budget")
    assert '"ceiling_usd": 25' in called
    program(front, *inspect, "--method", "tools/call", "--tool-name", "logs", "--tool-arg", "id=none", code=5)


def test_the_inspector_loads_it_with_calls(front: Front) -> None:
    argv = (
        "--method",
        "tools/call",
        "--tool-name",
        "status",
        "--load",
        "--load-requests",
        "200",
        "--load-concurrency",
        "50",
    )
    said = program(front, str(NPM / ".bin" / "mcp-inspector"), "--cli", SERVER, *argv)
    assert json.loads(said[said.index("{") :]) if "{" in said else said
    assert "200" in said


def test_the_probe_finds_nothing_wrong(front: Front) -> None:
    said = program(front, str(PYTHON / "bin" / "amagi-mcp-probe"), "-v", "--", SERVER)
    assert "FAIL" not in said
    assert "PASS" in said
