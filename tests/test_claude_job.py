"""The main job with the real Claude Code: handed over, asked, answered, and brought back as a branch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.claude_client import claude_path
from tests.fake_api import fail, fake_api, say, use
from tests.front import Front

KEY = "sk-ant-the-real-key"


@pytest.fixture
def front(users) -> Front:
    return users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY=KEY)


def test_work_is_asked_about_answered_and_lands_as_a_branch(front: Front, repo: Path):
    script = [
        use("Bash", command="git commit -q --allow-empty -m 'By the agent'"),
        use("Bash", command="sh -c 'echo two > a.txt'"),
        say("It is done."),
    ]
    with fake_api(script) as api:
        env = {"ANTHROPIC_BASE_URL": api.url}
        task = front.json("submit", "change it, please", env=env)["task_id"]
        waiting = front.until(task, "waiting", "failed", "completed")
        assert "echo two" in waiting["waiting_for"]
        front.run("send", task, "allow")
        done = front.until(task, "completed", "failed")
        assert {seen.token for seen in api.messages} == {KEY}
    assert (done["state"], done["reason"], done["exit_code"]) == ("completed", "agent-exit", 0)
    assert done["spent_usd"] > 0
    branch = f"parhelia/{task}"
    assert "By the agent" in front.git("log", "--format=%s", branch)
    assert front.git("show", f"{branch}:a.txt") == "two\n"
    assert (repo / "a.txt").read_text() == "one\n"
    lines = [line["text"] for line in front.json("logs", task)["lines"]]
    assert any("It is done." in line for line in lines)
    kept = [path for path in front.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert kept == []


def test_an_error_of_the_api_fails_the_task_with_its_words(front: Front, repo: Path):
    with fake_api([fail(400, "invalid_request_error", "this model is asleep")]) as api:
        done = front.run("submit", "--wait", "--json", "go", code=1, env={"ANTHROPIC_BASE_URL": api.url})
    told = json.loads(done.stdout)
    shown = front.show(told["task_id"])
    assert (shown["state"], shown["reason"]) == ("failed", "agent-error")
    assert "this model is asleep" in shown["detail"]
