"""What a server that was killed knew, for the next one: a file for the world and one in each sandbox's folder."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modal_proto import api_pb2

from parhelia_mcp import files

if TYPE_CHECKING:
    from tests.modal_loopback.world import Sandbox, World

NAMES = ("apps", "secrets", "secret_names", "volume_names", "rates", "snapshots")


def save(world: World) -> None:
    known: dict[str, Any] = {name: getattr(world, name) for name in NAMES}
    known |= {"images": sorted(world.images), "egress": sorted(world.egress), "machines": world.machines.is_set()}
    files.replace_json(world.state / "world.json", known)


def save_sandbox(world: World, sandbox: Sandbox) -> None:
    plain = ("id", "task_id", "app_id", "name", "created_at", "env", "tags", "vanished", "ended_at")
    row: dict[str, Any] = {name: getattr(sandbox, name) for name in plain}
    row["definition"] = base64.b64encode(sandbox.definition.SerializeToString()).decode()
    row["result"] = base64.b64encode(sandbox.result.SerializeToString()).decode() if sandbox.result else None
    row["box"] = sandbox.box.kept() if sandbox.box else None
    folder = world.folder(sandbox.id)
    folder.mkdir(parents=True, exist_ok=True)
    files.replace_json(folder / "kept.json", row)


def load(world: World) -> None:
    """Fill an empty world with what the state directory holds; sandboxes come without their processes."""
    known = files.read_json(world.state / "world.json")
    if known is None:
        return
    for name in NAMES:
        setattr(world, name, known[name])
    world.volumes = {volume_id: world.state / "volumes" / volume_id for volume_id in world.volume_names.values()}
    world.images |= set(known["images"])
    world.egress |= set(known["egress"])
    if not known["machines"]:
        world.machines.clear()
    for row in sorted((files.read_json(path) for path in _rows(world.state)), key=lambda row: row["created_at"]):
        _load_sandbox(world, row)


def _rows(state: Path) -> list[Path]:
    return list(state.glob("sandboxes/*/kept.json"))


def _load_sandbox(world: World, row: dict[str, Any]) -> None:
    from tests.modal_loopback.world import Result, Sandbox

    definition, result, box = row.pop("definition"), row.pop("result"), row.pop("box")
    sandbox = Sandbox(**row, definition=api_pb2.Sandbox.FromString(base64.b64decode(definition)), found=box)
    if result:
        sandbox.result = Result.FromString(base64.b64decode(result))
        sandbox.over.set()
    world.sandboxes[sandbox.id] = sandbox
