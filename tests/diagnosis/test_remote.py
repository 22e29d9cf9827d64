"""Faults of Modal, by the real SDK against the loopback: the cause is named, and the command that is printed mends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.diagnosis.ward import Patient, told
from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback


@pytest.fixture
def cloud(users: Callable[..., Front], loopback: Loopback) -> Front:
    user = users(**loopback.env, PARHELIA_PROVIDER="modal", PARHELIA_MODAL_CPU="1", PARHELIA_MODAL_MEMORY="1")
    user.repository()
    return user


def seen(cloud: Front, task: str, cause: str) -> dict[str, Any]:
    """The diagnosis in the task's view, once it is this cause."""
    return eventually(
        lambda: (found := cloud.show(task)["diagnosis"]) and found["cause"] == cause and found, within=120, what=cause
    )


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
    found = seen(cloud, task, cause)
    assert found["confidence"] == "certain"
    loopback.faults()
    if cloud.until(task, "completed", "failed", within=120)["state"] == "failed":
        assert cloud.json("budget", "show")["reserved_usd"] == 0
        cloud.json("recover", task, "--action", "restart")
    assert cloud.until(task, "completed", within=120)["exit_code"] == 0


def test_a_gpu_that_nobody_has_is_named_and_the_next_one_taken(cloud: Front, loopback: Loopback) -> None:
    scarce = {"rpc": "SandboxCreate", "action": "status", "status": "RESOURCE_EXHAUSTED", "message": "nothing free"}
    loopback.faults(scarce)
    options = ("--gpu", "H100", "--timeout-hours", "0.1")
    task = Patient(cloud, "true", options=options).task
    found = seen(cloud, task, "gpu-scarce")
    assert {"no-capacity", "quota", "region-unavailable"} & told(cloud.json("recover", task, "--action", "diagnose"))
    plan = cloud.json("recover", task)["plan"]
    assert plan["gpu"] not in (None, "H100")
    assert found["next"] == f"parhelia recover {task} --yes"
    cloud.run("recover", task, "--yes")
    loopback.faults()
    done = cloud.until(task, "completed", "failed", within=120)
    assert (done["state"], done["gpu"]) == ("completed", plan["gpu"])


def test_a_region_that_is_refused_is_left_for_any_other(cloud: Front, loopback: Loopback) -> None:
    refusal = {"rpc": "SandboxCreateV2", "action": "status", "status": "INVALID_ARGUMENT", "message": "unknown region"}
    loopback.faults(refusal)
    cloud.env["PARHELIA_MODAL_REGION"] = "us-easter"
    cloud.run("run", "-d", "--", "true", code=None)
    task = cloud.json("list")["tasks"][0]["task_id"]
    cloud.until(task, "failed", within=120)
    found = seen(cloud, task, "region-unavailable")
    loopback.faults()
    looked = cloud.json("recover", task, code=None)
    assert (looked["cause"], looked["plan"]["region"]) == ("region-unavailable", "any")
    Patient.of(cloud, task).typed(found["next"])
    assert cloud.until(task, "completed", "failed", within=120)["state"] == "completed"
    placed = [one["regions"] for one in loopback.record()["sandboxes"] if one["name"].startswith(task)]
    assert placed == [[]]


def test_an_image_that_cannot_be_built_is_named_and_once_mended_the_task_starts(
    cloud: Front, loopback: Loopback
) -> None:
    settings = cloud.user_home / ".config" / "parhelia" / "parhelia.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[modal]\nsetup = ["exit 3"]\n')
    cloud.run("run", "-d", "--", "true", code=None)
    task = cloud.json("list")["tasks"][0]["task_id"]
    cloud.until(task, "failed", within=120)
    found = seen(cloud, task, "image-build-failed")
    assert "ended in a failure" in found["what"]
    settings.write_text('[modal]\nsetup = ["true"]\n')
    Patient.of(cloud, task).typed(found["next"])
    assert cloud.until(task, "completed", "failed", within=120)["state"] == "completed"


def test_a_bad_entrypoint_there_is_named_and_its_log_says_so(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("no-such-program-here")
    cloud.until(task, "failed", within=120)
    found = cloud.json("recover", task, "--action", "diagnose")
    assert found["cause"] == "bad-entrypoint"
    assert "not found" in Patient.of(cloud, task).typed(found["next"])


def test_a_provider_that_does_not_answer_is_a_partition_and_ends_nothing(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sleep", "600")
    cloud.until(task, "running", within=120)
    away = [
        {"rpc": rpc, "action": "status", "status": "UNAVAILABLE"}
        for rpc in ("SandboxWaitV2", "TaskExecStart", "SandboxGetTaskIdV2")
    ]
    loopback.faults(*away)
    found = cloud.json("recover", task, "--action", "diagnose")
    assert found["cause"] == "partition"
    assert {"agent-hung", "container-frozen"} <= {each["cause"] for each in found["ruled_out"]} or found["evidence"]
    loopback.faults()
    assert cloud.until(task, "running", within=120)["session_id"] == f"{task}.1"
    cloud.run("session", "kill", task)


def test_a_sandbox_that_was_preempted_is_lost_and_comes_back(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sh", "-c", "test -e once || { touch once; sleep 600; }; echo again")
    cloud.until(task, "running", within=120)
    cloud.run("checkpoint", "create", task)
    loopback.vanish(f"{task}.1")
    found = seen(cloud, task, "lost")
    assert found["next"] == f"parhelia recover {task} --yes"
    cloud.run("recover", task, "--yes")
    assert cloud.until(task, "completed", "failed", within=120)["state"] == "completed"
