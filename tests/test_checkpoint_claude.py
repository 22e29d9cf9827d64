"""Checkpoints of sessions with the real Claude Code: before what destroys, in a turn, and where its conversation goes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.claude_client import claude_path, client_env
from tests.fake_api import fake_api, say, use
from tests.front import Front, eventually


@pytest.fixture
def front(users) -> Front:
    made = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-a-test")
    made.repository()
    return made


def at(api) -> dict[str, str]:
    """The environment of a user whose client works without asking, against `api`."""
    return {"ANTHROPIC_BASE_URL": api.url, "PARHELIA_AGENT_PERMISSION_MODE": "bypassPermissions", "IS_SANDBOX": "1"}


def done(front: Front, task: str) -> dict:
    ended = front.until(task, "completed", "failed", within=60)
    assert ended["state"] == "completed", ended
    return ended


def taken(front: Front, task: str) -> list[dict]:
    """The task's checkpoints, oldest first."""
    return front.json("checkpoint", "list", "--session", task)["checkpoints"][::-1]


def brought_home(front: Front, task: str, checkpoint: str, target: Path) -> Path:
    front.json("resume", task, "--checkpoint-id", checkpoint, "--target", str(target))
    return target


def test_a_command_that_destroys_waits_for_a_checkpoint_of_what_it_destroys(front: Front, tmp_path: Path) -> None:
    script = [
        use("Bash", command="mkdir build; echo precious > build/out.txt; echo edited > a.txt"),
        use("Bash", command="rm -rf build"),
        use("Bash", command="git reset --hard"),
        say("It is clean."),
    ]
    with fake_api(script) as api:
        task = front.json("submit", "clean up", env=at(api))["task_id"]
        shown = done(front, task)["checkpoints"]
    before_rm, before_reset, last = taken(front, task)
    assert [one["checkpoint_id"] for one in shown][::-1] == [one["checkpoint_id"] for one in taken(front, task)]
    for risky in (before_rm, before_reset):
        assert (risky["trigger"], risky["consistent"], risky["pending_tool"]) == ("risky", False, "Bash")
    assert (last["trigger"], last["consistent"], last["pending_tool"]) == ("complete", True, None)
    first = brought_home(front, task, before_rm["checkpoint_id"], tmp_path / "first")
    assert (first / "build/out.txt").read_text() == "precious\n"
    second = brought_home(front, task, before_reset["checkpoint_id"], tmp_path / "second")
    assert not (second / "build").exists()
    assert (second / "a.txt").read_text() == "edited\n"
    log = front.text("logs", task)
    assert "hook: in-session hooks: a checkpoint before risky commands" in log
    assert f"checkpoint {before_rm['checkpoint_id']} (risky: rm -rf build)" in log
    assert log.index(before_rm["checkpoint_id"]) < log.index("Bash rm -rf build: ok")


def test_a_repository_cannot_turn_the_hook_off(front: Front) -> None:
    settings = front.cwd / ".claude/settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"disableAllHooks": True, "env": {"PARHELIA_CONTROL": "/nowhere"}}))
    with fake_api([use("Bash", command="rm -rf a.txt"), say("Gone.")]) as api:
        task = front.json("submit", "clean up", env=at(api))["task_id"]
        done(front, task)
    assert [one["trigger"] for one in taken(front, task)] == ["risky", "complete"]
