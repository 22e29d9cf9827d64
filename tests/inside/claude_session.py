"""A session's room and the real Claude Code in it, run in this process so that a test can talk to the agent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from parhelia_mcp import spec
from parhelia_mcp.inside import claude
from parhelia_mcp.inside.agent import End, Room
from parhelia_mcp.inside.journal import Journal
from tests.claude_client import claude_path

REAL_KEY = "sk-ant-the-real-key"
CONVERSATION = "5d1f0c6e-8f4e-4a57-9f53-0a6f6e0b1c11"


class Session:
    """The agent at work, seen from the test."""

    def __init__(self, room: Room, portal: BlockingPortal) -> None:
        self.room = room
        self._portal = portal
        self._agent = portal.call(claude.make, room)
        self.end: Future[End] = portal.start_task_soon(self._agent.run)

    def send(self, text: str, id: str) -> Future[None]:
        return self._portal.start_task_soon(self._agent.send, text, id)

    def answer(self, allow: bool, text: str | None = None) -> None:
        self._portal.call(self._agent.answer, allow, text)

    def interrupt(self) -> None:
        self._portal.call(self._agent.interrupt)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.room.session_dir / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def log(self, name: str) -> str:
        return (self.room.session_dir / name).read_text()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.02)
    return value


def make_room(
    folder: Path, url: str, prompt: str, number: int = 1, limits: spec.Limits | None = None, **agent: Any
) -> Room:
    session_dir = folder / f"sessions-{number}"
    session_dir.mkdir(parents=True)
    for name in ("workspace", "home"):
        (folder / name).mkdir(exist_ok=True)
    told = {
        "program": str(claude_path()),
        "model": "opus",
        "session_id": CONVERSATION,
        "credential_kind": "api-key",
        "permission_mode": "default",
    }
    task = "task-claude00"
    return Room(
        spec=spec.Spec(
            task=task,
            session=f"{task}.{number}",
            workspace=spec.Workspace("empty"),
            sizes={},
            limits=limits or spec.Limits(),
            agent=spec.Agent(kind="claude", upstream=url, **told | agent),
            checkpoint=spec.CheckpointPolicy(),
            prompt=prompt,
        ),
        workspace=folder / "workspace",
        home=folder / "home",
        session_dir=session_dir,
        runtime=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "LANG": "C.UTF-8", "SHELL": "/bin/bash"},
        credential={"kind": "api-key", "value": REAL_KEY},
        journal=Journal(session_dir / "events.jsonl"),
        show=lambda text: None,
        log=lambda line: None,
        changed=lambda: None,
        spared=frozenset({os.getpid()}),
        failed=_fail,
    )


def _fail(problem: OSError) -> None:
    raise AssertionError from problem


@contextmanager
def working(room: Room) -> Iterator[Session]:
    """The agent at work in `room`; ended with the block."""
    with start_blocking_portal() as portal:
        session = Session(room, portal)
        try:
            yield session
        finally:
            session.end.cancel()
