"""The real Claude Code in print mode against a scripted model on loopback: what it ran, was told and asked for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.claude_client import claude_path
from tests.fake_api import fake_api, say, use

Call = tuple[str, Mapping[str, Any]]  # tool name and input


@dataclass(frozen=True)
class Run:
    code: int
    stderr: str
    events: list[dict[str, Any]]
    requests: list[dict[str, Any]]

    @property
    def init(self) -> dict[str, Any]:
        return next(event for event in self.events if event.get("subtype") == "init")

    @property
    def result(self) -> dict[str, Any]:
        return next(event for event in reversed(self.events) if event["type"] == "result")

    @property
    def told(self) -> str:
        """Everything the model was sent, as text."""
        return json.dumps([request["messages"] for request in self.requests], ensure_ascii=False)

    def tool_results(self) -> list[str]:
        """What the model read as the result of each call, in order."""
        return [_text(block.get("content")) for block in _blocks(self.requests[-1]) if block["type"] == "tool_result"]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _blocks(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for message in request["messages"]:
        if isinstance(message["content"], list):
            yield from message["content"]


def environment(home: Path, url: str = "http://127.0.0.1:9") -> dict[str, str]:
    """All that the client may see of this machine."""
    return {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",
    }


def run_claude(
    home: Path,
    project: Path,
    calls: list[Call],
    *args: str,
    prompt: str = "go",
    env: Mapping[str, str] | None = None,
    bypass: bool = True,
) -> Run:
    """One headless run of the client in `project` with `home` as its home; it ends by itself."""
    home.mkdir(parents=True, exist_ok=True)
    project.mkdir(parents=True, exist_ok=True)
    mode = ["--dangerously-skip-permissions"] if bypass else []
    command = [claude_path(), "-p", "--output-format", "stream-json", "--verbose", *mode, *args, "--", prompt]
    with fake_api([*(use(name, **given) for name, given in calls), say("all done")]) as api:
        done = subprocess.run(
            command,
            cwd=project,
            env={**environment(home, api.url), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Run(done.returncode, done.stderr, events, [seen.body for seen in api.messages])
