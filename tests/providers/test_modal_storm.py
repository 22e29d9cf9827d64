"""Sessions on a Modal that fails at random, driven by controllers that are killed at random; then it heals."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback, in_lanes
from tests.providers.test_modal_main_job import ON_MODAL, cloud, of  # noqa: F401 -- cloud is a fixture

RPCS = (
    *("AppGetOrCreate", "SandboxGetFromNameV2", "ImageGetOrCreate", "SandboxCreateV2", "SandboxWaitV2"),
    *("SandboxGetTaskIdV2", "SandboxGetCommandRouterAccess", "SandboxTerminateV2", "VolumeGetFile2"),
    *("TaskExecStart", "TaskExecStdioRead", "TaskExecStdinWrite", "TaskExecWait"),
)
STATUSES = ("UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN")
SEEDS = 25
ENDED = ("completed", "failed", "killed", "lost")


def fault(dice: random.Random, first: bool) -> dict:
    """Under the first submit it is as often as not the creation, at once: there a sandbox is doubled or lost."""
    rule = {"rpc": dice.choice(RPCS), "times": dice.randint(1, 4), "skip": dice.randint(0, 2)}
    if first and dice.random() < 0.5:
        rule |= {"rpc": "SandboxCreateV2", "skip": 0}
    action = dice.choice(("status", "lose", "slow", "cut"))
    status = {"status": dice.choice(STATUSES)} if action in ("status", "lose") else {}
    return {**rule, "action": action, "seconds": dice.random(), "messages": 1, **status}


def kill_controller(front: Front) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((front.home / "controller.lock").read_text()), signal.SIGKILL)


def creations(loopback: Loopback) -> int:
    return loopback.record()["seen"].get("SandboxCreateV2", 0)


def storm(front: Front, loopback: Loopback, seed: int, tasks: int, rounds: int) -> None:
    dice = random.Random(seed)
    submitted, killed = [], set()
    for turn in range(rounds):
        rules = [fault(dice, turn == 0) for _ in range(dice.randint(1, 3))]
        loopback.faults(*rules)
        created = creations(loopback)
        if turn < tasks:
            submitted.append(front.submit("sh", "-c", f"sleep 1; echo {turn} > out.txt"))
            if "SandboxCreateV2" in [rule["rpc"] for rule in rules]:
                eventually(lambda before=created: creations(loopback) > before, within=120, what="the creation")
        if dice.random() < 0.3:
            kill_controller(front)
        if dice.random() < 0.2:
            killed.add(dice.choice(submitted))
            front.run("session", "kill", sorted(killed)[-1], code=None)
        time.sleep(0.2)
    loopback.faults()
    for turn, task in enumerate(submitted):
        shown = front.until(task, *ENDED, within=120)
        assert shown["state"] == "completed" or task in killed, (seed, shown)
        assert shown["reserved_usd"] == 0
        assert len(of(loopback, task)) <= 1, "doubled"
        if shown["state"] == "completed":
            assert front.git("show", f"parhelia/{task}:out.txt") == f"{turn}\n"
    eventually(
        lambda: not [one for task in submitted for one in of(loopback, task, live=True)], within=120, what="every end"
    )
    money = front.json("budget", "show")
    assert money["reserved_usd"] == 0
    assert 0 <= money["spent_usd"] <= money["ceiling_usd"]
    assert loopback.record()["unimplemented"] == []


@pytest.mark.timeout(600)
def test_a_storm_doubles_nothing_and_loses_nothing(users: Callable[..., Front], tmp_path: Path) -> None:
    """Seen to fail: with a name of its own for each creation, an unknown sandbox went on after its answer was lost."""

    def work(seed: int, loopback: Loopback) -> None:
        user = users(f"user{seed}", **loopback.env, **ON_MODAL)
        user.repository()
        storm(user, loopback, seed, tasks=1, rounds=3)

    in_lanes(tmp_path, SEEDS, 3, work)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(200))
def test_storms(cloud: Front, loopback: Loopback, seed: int) -> None:  # noqa: F811
    storm(cloud, loopback, seed, tasks=4, rounds=12)
