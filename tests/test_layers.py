"""Imports point one way, and every module is reached from a front door."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "parhelia_mcp"

LAYERS = (  # from the ground up: a module may import its own layer and those before it
    ("errors", "model", "failpoint", "files", "locks", "plain", "redact", "processes", "spec", "prices"),
    ("store", "migrations", "providers", "config", "context", "workspace", "checkpoint"),
    (
        "budget",
        "billing",
        "snapshots",
        "credentials",
        "faults",
        "notify",
        "logbook",
        "follow",
        "sessions",
        "terms",
        "lifetime",
        "task_checkpoints",
        "task_limit",
        "controller",
        "delegation",
        "diagnosis",
        "ssh",
        "config_sync",
        "hook_validator",
        "hook_validation",
        "hook_install",
    ),
    ("verbs", "render"),
    ("cli", "mcp_server", "__main__", "door"),
)
INSIDE = frozenset(
    {"inside", "workspace", "checkpoint", "hook_validator", "hook_validation", "", *LAYERS[0]}
)  # what the sandbox may use
DOORS = (
    "door",
    "__main__",
    "controller",
    "providers.probe",
    "providers.modal.check",
    "notify",
    "inside.__main__",
    "inside.ssh_server",
    "inside.control",
    "inside.session_hook",
    "inside.tell",
    "inside.delegate_server",
)


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if "_alias" not in path.parts:
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            found[name.removesuffix("__init__").rstrip(".")] = path
    return found


def imports(path: Path, known: set[str], *, started: bool = False) -> set[str]:
    """The modules of ours that a file imports, in functions too, but not those only types need.

    `started` adds those it runs as programs: `python -m parhelia_mcp.inside`.
    """
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    named = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if (
            started
            and isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("parhelia_mcp.")
        ):
            named.add(node.value)  # python -m and the like
    ours = {name.removeprefix("parhelia_mcp").lstrip(".") for name in named if name.split(".")[0] == "parhelia_mcp"}
    return {name for name in ours if name in known}


def layer(module: str) -> int | None:
    top = module.split(".")[0]
    return next((number for number, names in enumerate(LAYERS) if top in names), None)


def test_every_module_has_a_place() -> None:
    assert [name for name in modules() if name and layer(name) is None and name.split(".")[0] != "inside"] == []


def test_imports_point_one_way() -> None:
    known = modules()
    wrong = []
    for name, path in known.items():
        for other in imports(path, set(known)) - {""}:
            if name.split(".")[0] == "inside":
                if other.split(".")[0] not in INSIDE:
                    wrong.append(f"{name} -> {other}: not for the sandbox")
            elif name and other.split(".")[0] == "inside":
                wrong.append(f"{name} -> {other}: only the sandbox runs it")
            elif name and layer(other) > layer(name):
                wrong.append(f"{name} -> {other}: points up")
    assert wrong == []


def test_every_module_is_reached_from_a_front_door() -> None:
    known = modules()
    reached, queue = set(), [door for door in DOORS if door in known]
    while queue:
        name = queue.pop()
        if name in reached:
            continue
        reached.add(name)
        queue += imports(known[name], set(known), started=True)
        queue += _table(name, known)
        queue += [".".join(name.split(".")[:depth]) for depth in range(len(name.split(".")))]
    assert sorted(set(known) - reached) == []


def _table(name: str, known: dict[str, Path]) -> list[str]:
    """The modules that the command line loads by its table."""
    if name != "cli":
        return []
    from parhelia_mcp.cli import TABLE

    return [module for entry in TABLE.values() if (module := f"cli.{entry.partition(':')[0]}") in known]


def test_only_the_store_speaks_sql_and_only_render_prints() -> None:
    for name, path in modules().items():
        text = path.read_text()
        assert "import sqlite3" not in text or name in ("store", "migrations", "budget"), name
        assert "click.echo" not in text, name
