"""Faults of Modal, by the real SDK against the loopback: the cause is named, and the command that is printed mends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback


@pytest.fixture
def cloud(users: Callable[..., Front], loopback: Loopback) -> Front:
    user = users(**loopback.env, PARHELIA_PROVIDER="modal", PARHELIA_MODAL_CPU="1", PARHELIA_MODAL_MEMORY="1")
    user.repository()
    return user


REFUSALS = {
    "token-rejected": ("UNAUTHENTICATED", "bad token"),
    "provider-permission": ("PERMISSION_DENIED", "not yours"),
    "region-unavailable": ("INVALID_ARGUMENT", "unknown region us-easter"),
    "quota": ("RESOURCE_EXHAUSTED", "GPU quota of the workspace exceeded"),
    "no-capacity": ("RESOURCE_EXHAUSTED", "nothing free"),
    "provider-unreachable": ("UNAVAILABLE", "down"),
}


@pytest.mark.parametrize("cause", REFUSALS)
def test_what_modal_refuses_is_named_with_what_to_do(cloud: Front, loopback: Loopback, cause: str) -> None:
    status, message = REFUSALS[cause]
    loopback.faults({"rpc": "SandboxCreateV2", "action": "status", "status": status, "message": message})
    cloud.run("run", "-d", "--", "sh", "-c", "exit 0", code=None)
    task = cloud.json("list")["tasks"][0]["task_id"]
    found = eventually(
        lambda: (seen := cloud.show(task)["diagnosis"]) and seen["cause"] == cause and seen, within=40, what=cause
    )
    assert found["confidence"] == "certain"
    loopback.faults()
    if cloud.show(task)["state"] == "failed":
        assert cloud.json("budget", "show")["reserved_usd"] == 0
        cloud.json("recover", task, "--action", "restart")
    assert cloud.until(task, "completed", within=60)["exit_code"] == 0


def test_a_provider_that_does_not_answer_is_a_partition_and_ends_nothing(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sleep", "600")
    cloud.until(task, "running", within=60)
    away = [
        {"rpc": rpc, "action": "status", "status": "UNAVAILABLE"}
        for rpc in ("SandboxWaitV2", "TaskExecStart", "SandboxGetTaskIdV2")
    ]
    loopback.faults(*away)
    found = cloud.json("recover", task, "--action", "diagnose")
    assert found["cause"] == "partition"
    assert {"agent-hung", "container-frozen"} <= {each["cause"] for each in found["ruled_out"]} or found["evidence"]
    loopback.faults()
    assert cloud.until(task, "running", within=40)["session_id"] == f"{task}.1"
    cloud.run("session", "kill", task)


def test_a_sandbox_that_was_preempted_is_lost_and_comes_back(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sh", "-c", "test -e once || { touch once; sleep 600; }; echo again")
    cloud.until(task, "running", within=60)
    cloud.run("checkpoint", "create", task)
    loopback.vanish(f"{task}.1")
    found = eventually(
        lambda: (seen := cloud.show(task)["diagnosis"]) and seen["cause"] == "lost" and seen, within=60, what="lost"
    )
    assert found["next"] == f"parhelia recover {task} --yes"
    cloud.run("recover", task, "--yes")
    assert cloud.until(task, "completed", "failed", within=60)["state"] == "completed"
