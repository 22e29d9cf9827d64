"""Checkpoints of sessions with the real Claude Code: before what destroys, in a turn, and where its conversation goes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.claude_client import claude_path, client_env
from tests.fake_api import Reply, fake_api, say, use
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
    ended = front.until(task, "completed", "failed", within=120)
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


def tear(conversation: Path) -> None:
    """Leave a last line that a client did not live to finish."""
    with conversation.open("a") as file:
        file.write('{"type":"user","message":{"role":"us')


def killed_in_a_tool_call(front: Front, tmp_path: Path, harm: Callable[[Path], None] = tear) -> str:
    """A task whose client was killed while its second command ran, and what happened to its conversation then."""
    wait = f"echo first > first.txt; while [ ! -e {tmp_path / 'go'} ]; do sleep 0.1; done"
    with fake_api([say("I begin.") + use("Bash", command="git status"), use("Bash", command=wait)]) as api:
        task = front.json("submit", "the magic word is xyzzy", env=at(api))["task_id"]
        folder = front.home / "tasks" / task
        eventually(lambda: (folder / "workspace/first.txt").exists(), within=120, what="the tool call")
        agent = json.loads((folder / "sessions/1/state.json").read_text())["agent"]["pid"]
        os.kill(agent, signal.SIGSTOP)
        (conversation,) = folder.glob("home/.claude/projects/*/*.jsonl")
        harm(conversation)
        os.kill(agent, signal.SIGKILL)
        assert front.until(task, "failed", "lost")["session_id"] == f"{task}.1"
    return task


def test_a_conversation_killed_in_a_tool_call_goes_on_where_it_was(front: Front, tmp_path: Path) -> None:
    task = killed_in_a_tool_call(front, tmp_path)
    (kept,) = taken(front, task)
    assert (kept["trigger"], kept["consistent"], kept["pending_tool"]) == ("error", False, "Bash")
    for number, name in ((2, "second"), (3, "third")):
        with fake_api([use("Bash", command=f"pwd; echo {name} > {name}.txt"), say(f"{name} is done")]) as api:
            front.json("resume", task, env=at(api))
            assert done(front, task)["session_id"] == f"{task}.{number}"
            said = json.dumps(api.messages[0].body["messages"])
            assert "the magic word is xyzzy" in said
            assert "I begin." in said
            assert str(front.home / "tasks" / task / "workspace") in json.dumps(api.messages[1].body["messages"])
    tree = front.git("ls-tree", "--name-only", f"refs/parhelia/{task}/3").split()
    assert {"first.txt", "second.txt", "third.txt"} <= set(tree)
    (projects,) = (front.home / "tasks" / task / "home/.claude/projects").iterdir()
    assert len(list(projects.glob("*.jsonl"))) == 1


def test_a_conversation_that_is_missing_is_said_and_the_files_go_on(front: Front, tmp_path: Path) -> None:
    task = killed_in_a_tool_call(front, tmp_path, Path.unlink)
    with fake_api([use("Bash", command="cat first.txt > second.txt"), say("I begin anew.")]) as api:
        assert "conversation" in front.json("resume", task, env=at(api))["note"]
        assert done(front, task)["session_id"] == f"{task}.2"
        assert 'I begin."' not in json.dumps(api.messages[0].body["messages"])
    assert front.git("show", f"refs/parhelia/{task}/2:second.txt") == "first\n"


def test_the_command_that_is_printed_continues_the_conversation_at_home(front: Front, tmp_path: Path) -> None:
    script = [
        use("Write", file_path="note.txt", content="kept\n"),
        use("TaskCreate", subject="Sweep the stairs", description="all of them"),
        say("I wrote it down."),
    ]
    with fake_api(script) as api:
        task = front.json("submit", "the magic word is xyzzy", env=at(api))["task_id"]
        done(front, task)
    target = tmp_path / "my work"
    command = front.json("resume", task, "--target", str(target))["next"]
    assert command.startswith(f"cd '{target}' && ")
    assert (target / "a.txt").read_text() == "one\n"
    ask = Reply(({"type": "tool_use", "id": "toolu_at_home", "name": "TaskList", "input": {}},))
    with fake_api([ask, say("As I said.")]) as api:
        headless = command.replace("claude --resume", "claude -p 'and now?' --resume")
        run = subprocess.run(
            ["sh", "-c", headless],
            env=client_env(tmp_path / "home", api.url, trust=(target,)) | {"PATH": front.env["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.stdout.strip() == "As I said.", run
        said = json.dumps(api.messages[-1].body["messages"])
    assert "the magic word is xyzzy" in said
    assert "I wrote it down." in said
    assert said.count("Sweep the stairs") > 2, "the task list came home too"
    assert front.git("status", "--porcelain", cwd=target) == "?? note.txt\n"


def test_a_fork_continues_the_conversation_at_a_path_of_its_own(front: Front) -> None:
    with fake_api([say("I listen.")]) as api:
        task = front.json("submit", "the magic word is xyzzy", env=at(api))["task_id"]
        done(front, task)
    (kept,) = taken(front, task)
    with fake_api([use("Bash", command="pwd"), say("Which was xyzzy.")]) as api:
        fork = front.json("submit", "what was it?", "--from-checkpoint", kept["checkpoint_id"], env=at(api))["task_id"]
        done(front, fork)
        said = json.dumps(api.messages[-1].body["messages"])
    assert "the magic word is xyzzy" in said
    assert "what was it?" in said
    assert str(front.home / "tasks" / fork / "workspace") in said
    (project,) = (front.home / "tasks" / fork / "home/.claude/projects").iterdir()
    assert project.name == re.sub(r"[^A-Za-z0-9]", "-", str(front.home / "tasks" / fork / "workspace"))
    assert len(taken(front, task)) == 1
    assert taken(front, fork)[-1]["session_id"] == f"{fork}.1"


def test_a_checkpoint_says_what_it_holds(front: Front) -> None:
    script = [use("TaskCreate", subject="Write tests", description="all of them"), say("I have a list.")]
    with fake_api(script) as api:
        task = front.json("submit", "plan", env=at(api))["task_id"]
        done(front, task)
    (kept,) = taken(front, task)
    shown = front.json("checkpoint", "show", kept["checkpoint_id"])
    manifest = shown["manifest"]
    agent = manifest["agent"]
    assert agent["transcript"] == f"conversation/{agent['session_id']}.jsonl"
    assert agent["cwd"] == str(front.home / "tasks" / task / "workspace")
    assert re.fullmatch(r"\d+\.\d+\.\d+", agent["version"])
    assert manifest["counters"]["turns"] == 1
    assert manifest["counters"]["tokens"] > 0
    assert manifest["counters"]["usd"] > 0
    assert {"HOME", "PATH"} <= set(manifest["env_names"])
    assert front.env["ANTHROPIC_API_KEY"] not in json.dumps(manifest)
    assert "I have a list." in shown["screen"]
    assert shown["conversation"]["lines"] > 2
    assert shown["tasks"] == 1
    text = front.text("checkpoint", "show", kept["checkpoint_id"])
    assert "I have a list." in text
    assert f"Claude Code {agent['version']}" in text
