"""Modal's server killed at every point of a submit: it comes back, and there is one sandbox, its work and its price."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.front import Front
from tests.modal_loopback.client import Loopback, in_lanes
from tests.providers.test_modal_main_job import ON_MODAL, of

RPCS = (  # of a submit, as they come
    *("AppGetOrCreate", "SandboxGetFromNameV2", "VolumeGetOrCreate", "ImageGetOrCreate", "SandboxCreateV2"),
    *("SandboxWaitV2", "SandboxGetTaskIdV2", "SandboxGetCommandRouterAccess"),
    *("TaskExecStart", "TaskExecStdinWrite", "TaskExecStdioRead", "TaskExecWait"),
)
POINTS = [(rpc, action) for rpc in RPCS for action in ("die", "die-after")]
SUBMITS = 6  # each submit meets every sixth point, one after the other
GPU = ("--gpu", "T4", "--timeout-hours", "1")  # which takes the older RPCs, all of these in one submit
GPU_POINTS = [
    (rpc, action)
    for rpc in ("SandboxCreate", "SandboxGetTaskId", "TaskGetCommandRouterAccess")
    for action in ("die", "die-after")
]


def submit(user: Front, loopback: Loopback, points: list[tuple[str, str]], *options: str) -> None:
    loopback.faults(*[{"rpc": rpc, "action": action, "times": 1} for rpc, action in points])
    argv = ("run", "-d", "--json", *options, "--", "sh", "-c", "echo done > out.txt")
    task = json.loads(user.run(*argv).stdout)["task_id"]
    shown = user.until(task, "completed", "failed", "lost", within=240)  # four servers have to come back meanwhile
    assert shown["state"] == "completed", (points, shown)
    assert loopback.faults_left() == []
    assert [one["live"] for one in of(loopback, task)] == [False]
    assert user.git("show", f"parhelia/{task}:out.txt") == "done\n"
    money = user.json("budget", "show")
    assert money["reserved_usd"] == 0
    assert 0 < money["spent_usd"] <= money["ceiling_usd"]
    assert loopback.record()["unimplemented"] == []


@pytest.mark.timeout(900)
def test_a_server_that_dies_at_each_point_of_a_submit_doubles_nothing_and_loses_nothing(
    users: Callable[..., Front], tmp_path: Path
) -> None:
    def work(turn: int, loopback: Loopback) -> None:
        user = users(f"user{turn}", **loopback.env, **ON_MODAL)
        user.repository()
        if turn < SUBMITS:
            submit(user, loopback, POINTS[turn::SUBMITS])
        else:
            submit(user, loopback, GPU_POINTS, *GPU)

    in_lanes(tmp_path, SUBMITS + 1, 3, work)
