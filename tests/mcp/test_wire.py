"""The server as a process: what it writes, what it survives, how it ends."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.front import Front, eventually
from tests.mcp.talk import Wire

Wires = Callable[..., Wire]
NOISY = """
import os, subprocess, sys
from parhelia_mcp.verbs import show
class Loud:
    def find_spec(self, name, *rest):
        if name == "mcp":
            print("printed while loading", flush=True)
            os.write(1, b"written while loading\\n")
quiet = show.looked
def loud(ctx, request):
    print("printed in a call", flush=True)
    os.write(1, b"written in a call\\n")
    subprocess.run(["echo", "said by a child"])
    return quiet(ctx, request)
sys.meta_path.insert(0, Loud())
show.looked = loud
from parhelia_mcp.__main__ import main
main()
"""


def text(answer: dict) -> str:
    return answer["result"]["content"][0]["text"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_in_the_middle_of_a_call(wires: Wires, front: Front, number: int) -> None:
    task = front.submit("sleep", "60")
    wire = wires().open()
    wire.call(1, "status", id=task, wait_s=600)
    eventually(lambda: wire.silent(1, 0.3) and front.show(task)["state"] == "running")
    assert wire.end(number) < 0.2 * slowness()
    assert front.show(task)["state"] == "running", "the session does not end with the server"
    assert "Traceback" not in wire.errors()


def slowness() -> float:
    """How much slower than a free core this machine is now: time is only measured against that."""
    began = time.process_time(), time.monotonic()
    sum(range(3_000_000))
    return max(1.0, 3 * (time.monotonic() - began[1]) / max(time.process_time() - began[0], 1e-3))


def test_the_end_of_input_ends_it_in_the_middle_of_a_call(wires: Wires, front: Front) -> None:
    task = front.submit("sleep", "60")
    wire = wires().open()
    wire.call(1, "status", id=task, wait_s=600)
    wire.silent(1, 0.3)
    assert wire.end() < 5
    assert wire.process.returncode == 0
    assert "Traceback" not in wire.errors()


def test_nothing_but_messages_reaches_standard_output_whatever_prints(wires: Wires, front: Front) -> None:
    task = front.submit("true")
    front.until(task, "completed")
    wire = wires(sys.executable, "-c", NOISY)
    wire.open().call(1, "status", id=task)
    assert json.loads(text(wire.answer(1)))["state"] == "completed"
    wire.end()
    said = wire.process.stderr.read()
    for line in (b"printed while loading", b"written while loading", b"printed in a call", b"said by a child"):
        assert line in said


def test_a_cancelled_call_is_not_answered_and_the_next_one_is(wires: Wires, front: Front) -> None:
    task = front.submit("sleep", "60")
    front.until(task, "running")
    wire = wires().open()
    wire.call(1, "status", id=task, wait_s=600)
    eventually(lambda: wire.silent(1, 0.2) and wire.notes, what="progress")
    wire.notify("notifications/cancelled", requestId=1)
    wire.call(2, "budget")
    wire.answer(2)
    told = len(wire.notes)
    assert wire.silent(1, 1.3)
    assert len(wire.notes) == told


def test_fifty_calls_at_once_are_all_answered(wires: Wires, front: Front) -> None:
    task = front.submit("echo", "hello")
    front.until(task, "completed")
    wire = wires().open()
    for number in range(1, 51):
        tool, arguments = (("status", {"id": task}), ("logs", {"id": task}), ("budget", {}))[number % 3]
        wire.call(number, tool, **arguments)
    assert all(
        "isError" not in wire.answer(number)["result"] or not wire.answers[number]["result"]["isError"]
        for number in range(1, 51)
    )


def test_a_line_of_five_megabytes_arrives(wires: Wires, front: Front) -> None:
    wire = wires().open()
    wire.call(1, "submit", prompt="x" * 5_000_000)
    assert "2,000,000 at most; nothing was started" in text(wire.answer(1))
    wire.call(2, "submit", command=["sh", "-c", "cat a", "🚀" * 50_000], workspace="/no/such")
    assert wire.answer(2)["result"]["isError"]


@pytest.mark.parametrize("depth", [150, 300, 100_000])
def test_deep_nesting_is_answered(wires: Wires, depth: int) -> None:
    wire = wires().open()
    nested = "[" * depth + "]" * depth
    wire.send(
        f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"status","arguments":{{"id":{nested}}}}}}}'.encode()
    )
    assert "error" in wire.answer(1) or wire.answers[1]["result"]["isError"]
    wire.call(2, "budget")
    wire.answer(2)


GARBAGE = [
    b"",
    b"not json",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"jsonrpc":"2.0"}',
    b"{" * 2000,
    b'{"id":',
    b"[1,2",
    b"\x00",
]


def test_garbage_is_survived_and_answered_where_somebody_waits(wires: Wires) -> None:
    wire = wires().open()
    for line in GARBAGE:
        wire.send(line)
    wire.send(b'{"jsonrpc":"2.0","id":"seven","method":"tools/call","params":{"name":"status","arguments":{"id":"a}}}')
    assert wire.answer("seven")["error"]["code"] == -32700
    wire.send(b'{"jsonrpc":"2.0","id":8,"method":5}')
    assert wire.answer(8)["error"]["code"] == -32600
    wire.call(9, "budget")
    assert json.loads(text(wire.answer(9)))["ceiling_usd"] == 25


def test_it_starts_with_a_broken_configuration_and_says_what_is_wrong(wires: Wires, front: Front) -> None:
    settings(front, "[budget]\nceilling_usd = 3\n")
    wire = wires().open()
    broken(wire, "parhelia.toml:2: unknown key budget.ceilling_usd; did you mean budget.ceiling_usd?")


def test_a_settings_file_is_read_anew_when_a_person_has_edited_it(wires: Wires, front: Front) -> None:
    wire = wires().open()
    assert ceiling(wire) == 25
    settings(front, "[budget]\nceiling_usd = 7\n")
    assert ceiling(wire) == 7
    (front.cwd / "parhelia.toml").write_text("[budget]\nceiling_usd = 3\n")
    assert ceiling(wire) == 3
    settings(front, "[budget\n")
    broken(wire, "parhelia.toml:1: not TOML")
    settings(front, "[budget]\nceiling_usd = 8\n[agent]\nmay = ['raise']\n")
    (front.cwd / "parhelia.toml").unlink()
    assert ceiling(wire) == 8
    wire.call("raise", "budget", action="set", ceiling_usd=9)
    assert json.loads(text(wire.answer("raise")))["ceiling_usd"] == 9
    wire.call("after", "status")
    assert "config" not in json.loads(text(wire.answer("after")))


def settings(front: Front, content: str) -> None:
    path = front.user_home / ".config" / "parhelia" / "parhelia.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def ceiling(wire: Wire) -> float:
    number = len(wire.answers)
    wire.request(number, "resources/read", uri="parhelia://budget")
    read = wire.answer(number)["result"]["contents"][0]["text"]
    wire.call(number + 1, "budget")
    shown = json.loads(text(wire.answer(number + 1)))["ceiling_usd"]
    assert json.loads(read)["ceiling_usd"] == shown
    return shown


def broken(wire: Wire, why: str) -> None:
    """What is started, raised or removed is refused with the line at fault; what only looks goes on."""
    for tool, arguments in (("submit", {"command": ["true"]}), ("budget", {"action": "set", "ceiling_usd": 1})):
        wire.call(tool, tool, **arguments)
        assert wire.answer(tool)["result"]["isError"]
        assert why in text(wire.answers[tool])
    wire.call("digest", "status")
    shown = json.loads(text(wire.answer("digest")))
    assert (shown["counts"], why in shown["config"]) == ({}, True)


def test_a_home_that_cannot_be_used_is_said(wires: Wires, front: Front, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wire = wires(PARHELIA_HOME=str(tmp_path / "file" / "home")).open()
    wire.call(1, "status")
    assert "cannot be made" in text(wire.answer(1))
