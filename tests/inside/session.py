"""A session on this machine, driven through the local provider as the controller drives it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parhelia_mcp import files, model, spec
from parhelia_mcp.providers.base import SandboxSpec
from parhelia_mcp.providers.local import Local

OWNER = "owner-of-tests"


def until(true: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """What `true` returns when that is something; fails when it never is."""
    deadline = time.monotonic() + within_s
    while not (value := true()):
        assert time.monotonic() < deadline, "this never became true"
        time.sleep(0.005)
    return value


class Session:
    """One command session below `home`; `end` is called by the fixture."""

    def __init__(self, home: Path, *, environment: dict[str, str] | None = None) -> None:
        self.task = model.new_task_id()
        self.number = 1
        self.name = f"{self.task}.1"
        self.root = home / "tasks" / self.task
        self.folder = self.root / "sessions" / "1"
        self.workspace = self.root / "workspace"
        self.provider = Local(home, {**os.environ, **(environment or {})})

    def start(self, *command: str, timeout_s: float = 60.0, credential: dict | None = None, **limits: Any) -> Session:
        """Start the runner and deliver the spec."""
        self.sandbox_spec = SandboxSpec(
            self.name, model.Sizes(1, 1), timeout_s, {"owner": OWNER}, credential=credential or {}
        )
        self.handle = self.provider.start(self.sandbox_spec)
        self.sandbox = self.provider.open(self.handle)
        if command:
            self.deliver(command, **limits)
        return self

    def next(self) -> Session:
        """The next session of the same task."""
        made = Session(self.root.parents[1])
        made.task, made.root, made.workspace = self.task, self.root, self.workspace
        made.number = self.number + 1
        made.name = f"{self.task}.{made.number}"
        made.folder = self.root / "sessions" / str(made.number)
        return made

    def deliver(
        self,
        command: tuple[str, ...],
        *,
        workspace: spec.Workspace | None = None,
        checkpoint: spec.CheckpointPolicy | None = None,
        **limits: Any,
    ) -> None:
        told = spec.Spec(
            task=self.task,
            session=self.name,
            workspace=workspace or spec.Workspace("empty"),
            sizes={},
            limits=spec.Limits(**limits),
            agent=spec.Agent("command"),
            checkpoint=checkpoint or spec.CheckpointPolicy(),
            command=command,
        )
        told.write(self.root / "spec.json")

    def events(self) -> list[dict[str, Any]]:
        data = files.read_at(self.folder / "events.jsonl", 0, 1 << 24)
        return [json.loads(line) for line, _ in files.whole_lines(data)]

    def text(self) -> str:
        return "\n".join(event["text"] for event in self.events())

    def stdout(self) -> bytes:
        return self.sandbox.read(f"sessions/{self.number}/stdout.log", limit=1 << 24)

    def stderr(self) -> bytes:
        return self.sandbox.read(f"sessions/{self.number}/stderr.log", limit=1 << 24)

    def state(self) -> dict[str, Any]:
        return files.read_json(self.folder / "state.json") or {}

    def op(self, op: str, **args: Any) -> dict[str, Any]:
        return dict(self.sandbox.control({"id": 7, "op": op, "args": args}))

    def wait_output(self, wanted: bytes) -> bytes:
        until(lambda: wanted in self.stdout())
        return self.stdout()

    def result(self) -> dict[str, Any]:
        """What result.json says once the sandbox has ended."""
        until(lambda: self.sandbox.poll() is not None, within_s=90)
        return files.read_json(self.folder / "result.json")

    def end(self) -> None:
        if hasattr(self, "sandbox"):
            self.sandbox.terminate()
