"""Arguments drawn from the tools' own schemas, and from what no schema allows: always an answer, never a traceback.

Seeded, so that a failure comes back; more of it with FUZZ_CALLS.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.front import Front
from tests.mcp.talk import Wire

SEED, CALLS, AT_ONCE = 20261123, int(os.environ.get("FUZZ_CALLS", "240")), 12
GOLDEN = json.loads(Path(__file__).with_name("surface.json").read_text())
TEXTS = [
    "",
    " ",
    "task-zzzzzzzz",
    "../../../etc/passwd",
    "/dev/null",
    "cp-deadbeef",
    "a" * 5_000,
    "é🚀\u202e",
    "\x00",
    "\ud800",
    "$(touch pwned)",
    "'; DROP TABLE tasks; --",
    "--force",
    "null",
    "(",
    "0.0.0",
    "99999999999999999999",
]
ODD: list[Any] = [None, True, -1, 0, 1, 1e308, -0.5, 10**30, [], {}, [[]], {"a": {"b": []}}, "text", ["\x00"], [1, 2]]


def argument(draw: random.Random, schema: dict[str, Any], known: list[str]) -> Any:
    """A value that mostly fits the schema and sometimes fits nothing."""
    if draw.random() < 0.2:
        return draw.choice(ODD)
    if "enum" in schema:
        return draw.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "string":
        return draw.choice([*TEXTS, *known * 6])
    if kind in ("number", "integer"):
        bounds = (schema.get("minimum", 0), schema.get("maximum", 50))
        return draw.choice([*bounds, bounds[0] - 1, 3, 0.5, float(draw.randint(0, 60))])
    if kind == "array":
        return [draw.choice(["true", "false", "no-such-program", "", "\x00"]) for _ in range(draw.randint(0, 3))]
    return draw.choice([True, False])


def places(front: Front, tmp_path: Path) -> tuple[list[str], list[str]]:
    """Where a restore may write, and every way out of there that comes to mind."""
    home, inside = front.home, tmp_path / "target"
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "file").write_text("mine\n")
    beside = os.path.relpath(tmp_path, front.cwd)
    good = [str(inside), f"{inside}.2/deep/er", f"{beside}/target.3", f"{inside}.4/../target.5"]
    ours = [str(home), f"{home}/new", f"{home}/tasks/new", f"{tmp_path}/link/new", f"{inside}/../link/x/y"]
    ours += [os.path.relpath(home / "new", front.cwd), str(home.parent), "..", "/"]
    none = [
        "",
        ".",
        "/dev/null",
        "/dev/null/x",
        "/proc/none/x",
        f"{tmp_path}/file",
        f"{tmp_path}/file/x",
        "~nobody-here/x",
    ]
    return good, [*ours, *none, "\x00", f"{inside}\x00", "\ud800", "a" * 5_000, "/" + "b/" * 3_000]


def around(front: Front, tmp_path: Path) -> set[str]:
    """Every name that a restore could have put where it was not told to."""
    folders = (Path("/"), Path("/dev"), tmp_path, front.user_home, front.cwd, front.home, front.home / "tasks")
    found = {str(path) for folder in folders for path in folder.iterdir()}
    return {
        path for path in found if not path.startswith((f"{tmp_path}/target", f"{tmp_path}/.target", f"{front.home}/"))
    } | {path for path in found if path.endswith(("/new", "/x"))}


def drawn(draw: random.Random, known: list[str], targets: list[str]) -> tuple[str, dict[str, Any]]:
    name = draw.choice(list(GOLDEN))
    schema = GOLDEN[name]["input_schema"]
    chosen = {key for key in schema["properties"] if draw.random() < 0.35} | set(schema.get("required", ()))
    given = {key: argument(draw, schema["properties"][key], known) for key in sorted(chosen)}
    if draw.random() < 0.05:
        given[draw.choice(["x", "task_id", "", "__class__"])] = 1
    if name == "status" and isinstance(given.get("wait_s"), int | float) and 0 < given["wait_s"] <= 600:
        given["wait_s"] = 0.1
    if isinstance(given.get("target"), str):
        given["target"] = draw.choice(targets)
    if name == "submit" and "provider" in given:
        given["provider"] = "local"
    return name, given


def test_drawn_arguments_always_get_an_answer(
    front: Front, repo: Path, wires: Callable[..., Wire], tmp_path: Path
) -> None:
    task = front.submit("echo", "hello")
    front.until(task, "completed")
    kept = front.json("checkpoint", "list")["checkpoints"]
    known = [task, f"{task}.1", str(tmp_path / "target"), *(row["checkpoint_id"] for row in kept)]
    good, bad = places(front, tmp_path)
    before = around(front, tmp_path)
    draw, wire = random.Random(SEED), wires(PARHELIA_AGENT_COMMAND="no-such-agent").open()
    open_calls: list[tuple[int, str, dict[str, Any]]] = []
    for number in range(1, CALLS + 1):
        name, given = drawn(draw, known, good + bad)
        wire.call(number, name, **given)
        open_calls.append((number, name, given))
        if len(open_calls) == AT_ONCE or number == CALLS:
            for each in open_calls:
                held(wire.answer(each[0], within=120), each)
            open_calls.clear()
    for place in bad:
        asked = ("restore", "checkpoint", {"action": "restore", "id": known[-1], "target": place})
        wire.answers.pop("restore", None)
        wire.call(*asked[:2], **asked[2])
        held(answer := wire.answer("restore", within=120), asked)
        assert "error" in answer or answer["result"]["isError"], asked
    wire.call("last", "checkpoint", action="restore", id=task, target=f"{tmp_path}/target.last")
    assert json.loads(wire.answer("last")["result"]["content"][0]["text"])["target"] == f"{tmp_path}/target.last"
    wire.end()
    assert around(front, tmp_path) == before
    assert "Traceback" not in wire.errors()
    assert not (front.home / "faults.log").exists(), (front.home / "faults.log").read_text()[-3000:]
    assert front.git("status", "--porcelain") == ""


def held(answer: dict[str, Any], asked: Any) -> None:
    said = json.dumps(answer, ensure_ascii=False)
    assert "result" in answer or answer["error"]["code"] in (-32602, -32600, -32700), (asked, said)
    assert not any(word in said for word in ("Traceback", "internal error", "pydantic", 'File \\"')), (asked, said)
    assert len(said) < 120_000, asked
