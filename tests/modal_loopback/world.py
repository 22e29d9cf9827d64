"""What exists on the loopback: apps, secrets, volumes, images, sandboxes."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import string
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_loopback.boxes import Box

RATES = {  # as `modal billing rates --json` spells them
    "cpu_hour_cost": "0.04730",
    "cpu_hour_cost_sandbox": "0.141900",
    "mem_gib_hour_cost": "0.00800",
    "mem_gib_hour_cost_sandbox": "0.024000",
    "gpu_hour_cost_a10g": "1.10000",
    "gpu_hour_cost_a100_80gb": "2.50000",
    "gpu_hour_cost_rtx6000": "3.03000",
    "gpu_hour_cost_h100": "3.95000",
    "volume_storage_gib_month_cost": "0.09000",
}
_BASE62 = string.ascii_letters + string.digits
Result = api_pb2.GenericResult


def new_id(prefix: str, length: int = 22, alphabet: str = _BASE62) -> str:
    return f"{prefix}-" + "".join(secrets.choice(alphabet) for _ in range(length))


def token() -> str:
    """A token that the SDK can read: three parts, far expiry, no signature worth the name."""
    payload = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 86_400}).encode()).decode().rstrip("=")
    return f"e30.{payload}.x"


@dataclass
class Sandbox:
    """One sandbox of either generation; `box` is None while it waits for a machine."""

    id: str
    task_id: str
    app_id: str
    name: str
    created_at: float
    definition: api_pb2.Sandbox
    env: dict[str, str]
    tags: dict[str, str]
    box: Box | None = None
    result: Result | None = None
    vanished: bool = False
    ended_at: float | None = None
    found: dict[str, Any] | None = None  # what the server before this one kept of its box
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, status: Result.GenericStatus.ValueType, code: int = 0) -> None:
        if self.result is None:
            self.ended_at = time.time()
            self.result = Result(status=status, exitcode=code)
            self.over.set()


class World:
    """Everything the server remembers; `kept` writes it down for the next one."""

    def __init__(self, state: Path, url: str) -> None:
        self.state = state
        self.url = url
        self.blob_url = ""  # where the blocks of volumes are served
        self.apps: dict[str, str] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.secret_names: dict[str, str] = {}
        self.volumes: dict[str, Path] = {}
        self.volume_names: dict[str, str] = {}
        self.images: set[str] = set()
        self.snapshots: dict[str, float] = {}  # images that are one -> when they expire
        self.sandboxes: dict[str, Sandbox] = {}
        self.rates: dict[str, str] = dict(RATES)
        self.egress: set[int] = set()  # ports of this machine that sandboxes started from now on may reach
        self.machines = asyncio.Event()  # whether there is a GPU machine for a waiting sandbox
        self.machines.set()
        self._last_created = 0.0

    def created_now(self) -> float:
        """The time, later than every earlier answer: paging goes by it."""
        self._last_created = max(time.time(), self._last_created + 1e-6)
        return self._last_created

    def has_image(self, image_id: str) -> bool:
        return image_id in self.images or self.snapshots.get(image_id, 0) > time.time()

    def snapshot_folder(self, image_id: str) -> Path:
        return self.state / "snapshots" / image_id

    def folder(self, sandbox_id: str) -> Path:
        return self.state / "sandboxes" / sandbox_id

    def sandbox(self, sandbox_id: str) -> Sandbox:
        found = self.sandboxes.get(sandbox_id)
        if found is None or found.vanished:
            raise GRPCError(Status.NOT_FOUND, f"Sandbox {sandbox_id} not found")
        return found

    def by_task(self, task_id: str) -> Sandbox:
        found = next((one for one in self.sandboxes.values() if one.task_id == task_id), None)
        if found is None or found.vanished or found.result is not None or found.box is None:
            raise GRPCError(Status.NOT_FOUND, f"Task {task_id} is not running")
        return found

    def by_name(self, app_id: str, name: str, dead_too: bool = False) -> Sandbox | None:
        same = [
            one for one in self.sandboxes.values() if one.app_id == app_id and one.name == name and not one.vanished
        ]
        living = [one for one in same if one.result is None]
        return next(iter(living), None) or (same[-1] if dead_too and same else None)
