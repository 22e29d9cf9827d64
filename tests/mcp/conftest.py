"""Fixtures of the MCP tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parhelia_mcp.mcp_server.server import Server
from tests.front import Front
from tests.mcp.talk import Wire, server_of


@pytest.fixture
def server(front: Front) -> Server:
    """The server object of a user whose project is a directory with one file."""
    (front.cwd / "a.txt").write_text("one\n")
    return server_of(front)


@pytest.fixture
def wires(front: Front) -> Iterator[Callable[..., Wire]]:
    """Starts server processes; they end with the test."""
    started: list[Wire] = []

    def wire(*argv: str, **environment: str) -> Wire:
        started.append(Wire(front, *argv, **environment))
        return started[-1]

    yield wire
    for each in started:
        each.close()
