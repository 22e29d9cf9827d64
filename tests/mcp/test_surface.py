"""What every conversation pays for and every host relies on: the tools' definitions, kept in surface.json.

After a wanted change: `python -m tests.mcp.test_surface` writes the file anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from parhelia_mcp.mcp_server.server import INSTRUCTIONS, Server
from parhelia_mcp.verbs import budget, digest, logs, submit
from tests.front import Front
from tests.mcp.talk import ERAS, server_of, talk

GOLDEN = Path(__file__).with_name("surface.json")
MOST_BYTES = 6_400


def surface(server: Server, era: str = "legacy") -> dict[str, Any]:
    async def story(client: Client) -> list[Any]:
        return (await client.list_tools()).tools

    return {
        tool.name: {
            "title": tool.title,
            "description": tool.description,
            "input_schema": tool.input_schema,
            "output": sorted(tool.output_schema["properties"]) if tool.output_schema else None,
            "annotations": tool.annotations.model_dump(exclude_none=True),
        }
        for tool in talk(server, story, era=era)
    }


@pytest.mark.parametrize("era", ERAS)
def test_the_surface_is_the_one_that_was_agreed(server: Server, era: str) -> None:
    assert surface(server, era) == json.loads(GOLDEN.read_text())


def test_the_definitions_fit_as_they_are_sent_to_the_model(server: Server) -> None:
    sent = [
        {"name": name, "description": tool["description"], "input_schema": tool["input_schema"]}
        for name, tool in surface(server).items()
    ]
    assert len(json.dumps(sent, separators=(",", ":"), ensure_ascii=False).encode()) <= MOST_BYTES
    assert '"title"' not in json.dumps(sent)
    assert "anyOf" not in json.dumps(sent)


def test_every_tool_says_what_it_is_and_what_it_may_do(server: Server) -> None:
    for name, tool in surface(server).items():
        assert tool["title"], name
        assert 100 < len(tool["description"]) < 500, name
        assert set(tool["annotations"]) >= {"read_only_hint", "destructive_hint", "open_world_hint"}, name
        assert tool["input_schema"]["additionalProperties"] is False, name
        for argument, schema in tool["input_schema"]["properties"].items():
            assert schema.get("description") or "enum" in schema, f"{name}.{argument}"
    read_only = {name for name, tool in surface(server).items() if tool["annotations"]["read_only_hint"]}
    assert read_only == {"status", "logs"}


def test_arguments_have_the_names_of_the_requests(server: Server) -> None:
    names = {name: set(tool["input_schema"]["properties"]) for name, tool in surface(server).items()}
    assert names["submit"] == set(submit.Request.model_fields) - {"interactive", "dry_run"}
    assert names["logs"] == set(logs.Request.model_fields)
    assert names["status"] == {"id", "state", "wait_s", "cursor"} | set(digest.Request.model_fields)
    assert names["budget"] >= {"action", "ceiling_usd"}
    assert budget.Request.model_fields == {}


def test_the_instructions_reach_the_model_whole() -> None:
    assert len(INSTRUCTIONS) < 2_000


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(surface(server_of(Front(Path(folder)))), indent=1, ensure_ascii=False) + "\n")
