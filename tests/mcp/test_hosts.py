"""What README tells other hosts to start is started exactly so, in the user's project and with nothing else in the environment."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
import tomli
from mcp import Client, StdioServerParameters

from tests import setup
from tests.claude_client import claude_path, client_env
from tests.front import SERVER, Front
from tests.mcp.talk import call

README = (setup.ROOT / "README.md").read_text()
HOSTS = dict(re.findall(r"^\| (\w[^|]*?) \| `([^`|]*parhelia-mcp[^`|]*)` \|$", README, re.M))
ADDED = re.search(r"^claude mcp add .*$", README, re.M)
PATH = f"{Path(SERVER).parent}:{os.environ['PATH']}"


def entry(snippet: str) -> dict[str, Any]:
    """What a host reads under the name parhelia, whatever it calls the table of its servers."""
    (servers,) = (json.loads(snippet) if snippet.startswith("{") else tomli.loads(snippet)).values()
    return servers["parhelia"]


def serves(front: Front, start: dict[str, Any]) -> None:
    """The entry starts a server that works on the project it is started in."""

    async def story() -> None:
        env = {"HOME": str(front.user_home), "PATH": PATH, **start.get("env", {})}
        given = StdioServerParameters(command=start["command"], args=start.get("args", []), env=env, cwd=front.cwd)
        async with Client(given, mode="legacy") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"submit", "status", "logs", "checkpoint", "budget", "recover"}
            assert (await call(client, "status"))["counts"] == {}

    anyio.run(story)


@pytest.mark.parametrize("host", HOSTS)
def test_the_entry_for_a_host_starts_the_server(front: Front, host: str) -> None:
    serves(front, entry(HOSTS[host]))


def test_readme_has_an_entry_for_each_host_of_the_field() -> None:
    assert all(
        any(name in host for host in HOSTS) for name in ("Claude Desktop", "Cursor", "VS Code", "Codex", "others")
    )


def test_what_claude_mcp_add_of_readme_writes_starts_the_server(front: Front) -> None:
    assert ADDED
    env = {**client_env(front.user_home, "http://127.0.0.1:1"), "PATH": f"{claude_path().parent}:{PATH}"}

    def claude(*argv: str) -> str:
        done = subprocess.run(argv, cwd=front.cwd, env=env, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    claude(*shlex.split(ADDED[0]))
    written = json.loads((front.user_home / ".claude.json").read_text())["mcpServers"]["parhelia"]
    assert (written["command"], written["args"]) == ("parhelia", ["mcp"])
    serves(front, written)
    assert "Connected" in claude("claude", "mcp", "list")
