"""Modal's server killed at every point of a submit: it comes back, and there is one sandbox, its work and its price."""

from __future__ import annotations

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


def submit(user: Front, loopback: Loopback, points: list[tuple[str, str]]) -> None:
    loopback.faults(*[{"rpc": rpc, "action": action, "times": 1} for rpc, action in points])
    task = user.submit("sh", "-c", "echo done > out.txt")
    shown = user.until(task, "completed", "failed", "lost", within=120)
    assert shown["state"] == "completed", (points, shown)
    assert loopback.faults_left() == []
    assert [one["live"] for one in of(loopback, task)] == [False]
    assert user.git("show", f"parhelia/{task}:out.txt") == "done\n"
    money = user.json("budget", "show")
    assert money["reserved_usd"] == 0
    assert 0 < money["spent_usd"] <= money["ceiling_usd"]
    assert loopback.record()["unimplemented"] == []


@pytest.mark.timeout(400)
def test_a_server_that_dies_at_each_point_of_a_submit_doubles_nothing_and_loses_nothing(
    users: Callable[..., Front], tmp_path: Path
) -> None:
    def work(turn: int, loopback: Loopback) -> None:
        user = users(f"user{turn}", **loopback.env, **ON_MODAL)
        user.repository()
        submit(user, loopback, POINTS[turn::SUBMITS])

    in_lanes(tmp_path, SUBMITS, 3, work)
