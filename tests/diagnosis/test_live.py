"""Faults done to real sessions on this machine: the cause is named, and the command that is printed mends it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.claude_client import claude_path
from tests.diagnosis.ward import Patient, told
from tests.fake_api import fail, fake_api, say, use
from tests.front import Front, eventually

KEEP = ("sh", "-c", "test -e once || { echo kept > kept.txt; touch once; sleep 600; }; cat kept.txt; sleep 600")


def test_a_stopped_agent_is_hung_and_goes_on_with_its_work(front: Front, repo: Path) -> None:
    patient = Patient(front, *KEEP).working()
    assert front.show(patient.task)["diagnosis"] is None
    eventually((patient.folder().parents[1] / "workspace" / "once").exists, what="its work")
    patient.signal(signal.SIGSTOP, "agent")
    found = patient.diagnosis()
    assert found["cause"] == "agent-hung"
    assert {"container-frozen", "partition"} <= told(found)
    assert front.show(patient.task)["diagnosis"]["cause"] == "agent-hung"
    patient.typed(found["next"])
    assert front.until(patient.task, "running")["session_id"] == f"{patient.task}.2"
    eventually(lambda: "kept" in front.text("logs", patient.task, "--stream", "output"), what="the kept file")
    front.run("session", "kill", patient.task)


def test_a_frozen_sandbox_is_not_a_hung_agent_and_comes_back(front: Front, repo: Path) -> None:
    patient = Patient(front, *KEEP).working()
    patient.signal(signal.SIGSTOP, "guard", "runner", "agent")
    patient.age_heartbeat(30)
    found = patient.diagnosis()
    assert found["cause"] == "container-frozen"
    assert {"agent-hung", "partition"} <= told(found)
    patient.typed(found["next"])
    assert front.until(patient.task, "running")["session_id"] == f"{patient.task}.2"
    front.run("session", "kill", patient.task)


def test_a_control_socket_that_is_cut_is_a_partition_and_nothing_is_ended(front: Front, repo: Path) -> None:
    patient = Patient(front, *KEEP).working()
    control = Path(patient.state()["control"])
    control.rename(control.with_name("away"))
    found = patient.diagnosis()
    assert found["cause"] == "partition"
    assert {"agent-hung", "container-frozen"} <= told(found)
    assert found["next"].startswith("sleep 60; ")
    control.with_name("away").rename(control)
    patient.typed(found["next"].removeprefix("sleep 60; "))
    assert patient.diagnosis()["cause"] in ("healthy", "port-taken")
    assert front.show(patient.task)["session_id"] == f"{patient.task}.1"
    front.run("session", "kill", patient.task)


def test_a_terminal_that_is_gone_harms_nothing_else(front: Front, repo: Path) -> None:
    patient = Patient(front, *KEEP).working()
    socket = eventually(lambda: patient.state()["tmux"].get("socket"), what="tmux")
    subprocess.run(["tmux", "-S", socket, "kill-server"], check=True)
    found = patient.diagnosis()
    assert found["cause"] == "tmux-gone"
    patient.typed(found["next"].replace(" --follow", ""))
    assert front.show(patient.task)["state"] == "running"
    front.run("session", "kill", patient.task)


def test_memory_that_was_too_little_is_doubled(front: Front, repo: Path) -> None:
    patient = Patient(
        front, "python3", "-c", "import time; held = bytearray(150 << 20); time.sleep(2)", options=("--memory", "0.1")
    )
    front.until(patient.task, "failed")
    found = patient.diagnosis()
    assert (found["cause"], found["plan"]["memory_gb"]) == ("out-of-memory", 0.2)
    patient.typed(found["next"])
    assert front.until(patient.task, "completed", "failed")["state"] == "completed"


def test_an_exit_code_is_the_tasks_own_failure_and_is_not_repeated_unasked(front: Front, repo: Path) -> None:
    patient = Patient(front, "sh", "-c", "echo the reason; exit 7")
    front.until(patient.task, "failed")
    found = patient.diagnosis()
    assert (found["cause"], found["plan"] is not None) == ("agent-exit", True)
    assert "the reason" in patient.typed(found["next"])
    front.run("recover", patient.task, "--yes", code=1)
    assert front.show(patient.task)["session_id"] == f"{patient.task}.1"


def test_a_bad_entrypoint_is_named_and_its_log_shown(front: Front, repo: Path) -> None:
    patient = Patient(front, "no-such-program-here")
    front.until(patient.task, "failed")
    found = patient.diagnosis()
    assert found["cause"] == "bad-entrypoint"
    said = patient.typed(found["next"])
    assert "entrypoint" in said
    assert "not found" in said


def test_a_sandbox_whose_runner_gives_no_sign_of_life_is_never_ready_until_it_does(front: Front, repo: Path) -> None:
    front.env["PARHELIA_FAILPOINT"] = "runner.begin:sleep=90"
    patient = Patient(front, "echo", "late")

    def never_ready() -> dict[str, Any] | None:
        found = front.json("status", patient.task)["diagnosis"]
        return found if found and found["cause"] == "never-ready" else None

    found = eventually(never_ready, what="never-ready")
    assert "the runner has not written it" in str(found["evidence"])
    assert "starting" in patient.typed(found["next"])
    assert front.until(patient.task, "completed", "failed")["state"] == "completed"


def test_a_runner_that_was_killed_loses_the_session_and_not_the_work(front: Front, repo: Path) -> None:
    patient = Patient(front, *KEEP).working()
    eventually((patient.folder().parents[1] / "workspace" / "once").exists, what="its work")
    front.run("checkpoint", "create", patient.task)
    patient.signal(signal.SIGKILL, "runner")
    front.until(patient.task, "lost")
    found = patient.diagnosis()
    assert found["cause"] == "lost"
    patient.typed(found["next"])
    front.until(patient.task, "running")
    eventually(lambda: "kept" in front.text("logs", patient.task, "--stream", "output"), what="the kept file")
    front.run("session", "kill", patient.task)


def test_a_controller_that_was_killed_is_started_by_the_next_command(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    pid = int(eventually((front.home / "controller.lock").read_text, what="the controller"))
    os.kill(pid, signal.SIGKILL)
    check = eventually(
        lambda: next(
            (
                one
                for one in front.json("doctor")["checks"]
                if one["name"] == "controller" and one["state"] == "warning"
            ),
            None,
        ),
        what="doctor to see it",
    )
    patient.typed(check["fix"])
    eventually(lambda: (front.home / "controller.lock").read_text().strip() not in ("", str(pid)), what="a new one")
    front.run("session", "kill", patient.task)


def test_a_damaged_newest_checkpoint_leads_to_the_one_before(front: Front, repo: Path) -> None:
    patient = Patient(
        front,
        "sh",
        "-c",
        "echo 1 > one.txt; until test -e go; do sleep 0.05; done; head -c 90000 /dev/urandom > two; exit 7",
    )
    patient.working()
    good = front.json("checkpoint", "create", patient.task)["checkpoint_id"]
    packs = patient.folder().parents[1] / "checkpoints" / "packs"
    before = set(packs.iterdir())
    (patient.folder().parents[1] / "workspace" / "go").touch()
    front.until(patient.task, "failed")
    for pack in set(packs.iterdir()) - before:
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
    found = patient.diagnosis()
    assert (found["cause"], found["plan"]["from_checkpoint"]) == ("checkpoint-corrupted", good)
    assert good in found["next"]
    assert f"from {good}" in patient.typed(found["next"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MB that can be made larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_named_and_with_room_the_task_goes_on(small_disk: Path, users: Callable[..., Front]) -> None:
    front = users(PARHELIA_HOME=str(small_disk / "state"))
    front.home = small_disk / "state"
    front.repository()
    script = "head -c 60000000 /dev/zero > big && echo there is room"
    patient = Patient(front, "sh", "-c", script)
    front.until(patient.task, "failed")
    found = patient.diagnosis()
    assert found["cause"] == "disk-full"
    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    patient.typed(found["next"])
    assert front.until(patient.task, "completed", "failed")["state"] == "completed"


def test_a_hook_that_will_not_run_is_named_and_mended(front: Front, repo: Path) -> None:
    script = front.user_home / "hook.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    settings = front.user_home / ".claude" / "settings.json"
    settings.parent.mkdir()
    entry = {"matcher": "Bash", "hooks": [{"type": "command", "command": str(script)}]}
    settings.write_text(json.dumps({"hooks": {"PreToolUse": [entry]}}))
    patient = Patient(front, "sleep", "600").working()
    found = patient.diagnosis()
    assert found["cause"] == "hooks-broken"
    assert str(script) in patient.typed(found["next"], code=None)
    doctor = front.json("doctor", code=2)
    fix = next(one["fix"] for one in doctor["checks"] if one["name"] == "hooks" and one["state"] == "broken")
    assert "chmod +x" in fix
    script.chmod(0o755)
    assert patient.diagnosis()["cause"] in ("healthy", "port-taken")
    front.run("session", "kill", patient.task)


def test_a_key_that_was_revoked_is_told_from_a_person_who_is_waited_for(users: Callable[..., Front]) -> None:
    front = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-the-key-of-a-test")
    front.repository()
    script = [
        fail(401, "authentication_error", "invalid x-api-key"),
        use("Bash", command="sh -c 'echo two > a.txt'"),
        say("It is done."),
    ]
    with fake_api(script) as api:
        front.env["ANTHROPIC_BASE_URL"] = api.url
        task = front.json("submit", "change it")["task_id"]
        front.until(task, "failed")
        patient = Patient.of(front, task)
        found = patient.diagnosis()
        assert found["cause"] == "api-key-rejected"
        patient.typed(found["next"])
        waiting = front.until(task, "waiting", "failed", within=120)
        assert waiting["diagnosis"]["cause"] == "waiting-for-a-person"
        assert "echo two" in waiting["diagnosis"]["what"]
        patient.typed(waiting["diagnosis"]["next"])
        assert front.until(task, "completed", "failed", within=120)["state"] == "completed"


@pytest.mark.parametrize(
    ("status", "kind", "cause"),
    [(429, "rate_limit_error", "rate-limited"), (529, "overloaded_error", "api-overloaded")],
)
def test_an_api_that_has_no_room_is_named_while_the_agent_tries_again(
    users: Callable[..., Front], status: int, kind: str, cause: str
) -> None:
    front = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-the-key-of-a-test")
    front.repository()
    room = threading.Event()
    patient_client = {"retry-after": "10"}  # it tries ten times: a slow machine must not see it give up
    refused = fail(status, kind, "not now", retry=True).but(headers=patient_client, times=0)
    refusal = refused.but(when=lambda _: not room.is_set())
    with fake_api([refusal, say("It is done.")]) as api:
        front.env["ANTHROPIC_BASE_URL"] = api.url
        task = front.json("submit", "change it")["task_id"]
        found = eventually(lambda: front.json("status", task)["diagnosis"], within=120, what=cause)
        assert (found["cause"], str(status) in found["what"]) == (cause, True)
        room.set()
        said = Patient.of(front, task).typed(found["next"])  # follows the log until the task has ended
        assert "It is done." in said
        assert front.show(task)["state"] == "completed"


@pytest.mark.parametrize(
    ("status", "kind", "cause", "headers"),
    [
        (429, "rate_limit_error", "rate-limited", {"x-should-retry": "false"}),
        (
            529,
            "overloaded_error",
            "api-overloaded",
            {"retry-after": "1"},
        ),  # it tries again whatever the header above says
    ],
)
def test_an_agent_that_gave_up_on_an_api_without_room_is_resumed_when_there_is_room(
    users: Callable[..., Front], status: int, kind: str, cause: str, headers: dict[str, str]
) -> None:
    front = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-the-key-of-a-test")
    front.repository()
    room = threading.Event()
    refused = fail(status, kind, "not now").but(headers=headers, times=0)
    with fake_api([refused.but(when=lambda _: not room.is_set()), say("It is done.")]) as api:
        front.env["ANTHROPIC_BASE_URL"] = api.url
        task = front.json("submit", "change it")["task_id"]
        front.until(task, "failed")
        patient = Patient.of(front, task)
        found = patient.diagnosis()
        assert (found["cause"], found["confidence"]) == (cause, "certain")
        assert str(status) in found["what"]
        room.set()
        patient.typed(found["next"].removeprefix("sleep 60; "))  # there is room already
        assert front.until(task, "completed", "failed")["state"] == "completed"


def test_the_wizard_asks_with_numbers_and_does_what_is_chosen(front: Front, repo: Path) -> None:
    patient = Patient(front, "sh", "-c", "test -e once && exit 0; touch once; exit 7")
    front.until(patient.task, "failed")
    parent, child = pty.openpty()
    process = front.start("recover", patient.task, stdin=child, stdout=child, stderr=child)
    os.close(child)
    said = b""
    limit = time.monotonic() + 30
    while b"which" not in said and time.monotonic() < limit:
        said += os.read(parent, 4096)
    assert b"1) resume" in said
    assert b"cause: " in said
    os.write(parent, b"1\n")
    process.wait(timeout=30)
    os.close(parent)
    assert front.until(patient.task, "completed", "failed")["session_id"] == f"{patient.task}.2"
    assert front.show(patient.task)["state"] == "completed"
