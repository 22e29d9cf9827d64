"""The protocol's own conformance suite, at both versions, on our server object with the suite's fixtures added."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import setup
from tests.front import eventually

NPM, _ = setup.mcp_peers()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "tests.mcp.conformance_server", str(port)]
    server = subprocess.Popen(argv, cwd=setup.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up() -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(up, within=120, what="the server")
        yield f"http://localhost:{port}/mcp"
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_every_scenario_passes(url: str, version: str, tmp_path: Path) -> None:
    argv = [str(NPM / ".bin" / "conformance"), "server", "--url", url, "--suite", "all", "--spec-version", version]
    env = {"PATH": f"{NPM / '.bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "NO_PROXY": "localhost,127.0.0.1"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    passed = set(re.findall(r"✓ ([a-z0-9-]+): ", done.stdout))
    failed = set(re.findall(r"✗ ([a-z0-9-]+): ", done.stdout))
    assert (len(passed) >= 33, failed) == (True, set()), done.stdout[-3000:]
