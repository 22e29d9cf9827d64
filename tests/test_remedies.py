"""The symptoms people come with: each command they are told to type, as they type it, and what they are to see then."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.front import PARHELIA, Front, eventually

VALIDATE = "python3 -c 'from parhelia.hook_validator import HookValidator; v = HookValidator(); print(v.validate())'"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A user whose one task is done, one used too much memory, one was killed, and one runs with two checkpoints."""
    front = Front(tmp_path_factory.mktemp("remedies"))
    stub = front.root / "agent"
    stub.write_text("#!/bin/sh\nexec sleep 600\n")
    stub.chmod(0o755)
    front.env |= {"PARHELIA_AGENT_COMMAND": str(stub), "ANTHROPIC_API_KEY": "none"}
    front.env["PATH"] = f"{Path(PARHELIA).parent}:{front.env['PATH']}"
    try:
        front.repository()
        done = front.submit("sh", "-c", "echo out; echo new > c.txt")
        hungry = ("--memory", "0.2", "--", "python3", "-c", "bytearray(900 << 20); input()")
        full = json.loads(front.run("run", "-d", "--json", *hungry).stdout)["task_id"]
        killed = front.submit("sh", "-c", "echo part > part.txt; sleep 600")
        live = front.submit("sh", "-c", "echo up; sleep 600")
        eventually(lambda: "up" in front.text("logs", live), what="its first line", within=120)
        first = front.json("checkpoint", "create", live)["checkpoint_id"]
        (Path(front.show(live)["workspace_path"]) / "a.txt").write_text("other\n")
        second = front.json("checkpoint", "create", live)["checkpoint_id"]
        front.until(done, "completed", within=120)
        front.until(full, "failed", within=120)
        front.run("session", "kill", killed)
        yield SimpleNamespace(front=front, done=done, full=full, killed=killed, live=live, first=first, second=second)
    finally:
        front.close()


def typed(front: Front, line: str) -> subprocess.CompletedProcess[str]:
    """A line as the user's shell takes it."""
    argv = ["bash", "-c", line]
    return subprocess.run(argv, cwd=front.cwd, env=front.env, capture_output=True, text=True, timeout=60, check=False)


TYPED = [  # the line, its exit code, what is to be seen on standard output
    ("parhelia status", 0, r"config +ok(.|\n)*tasks +.*running(.|\n)*budget +\$(.|\n)*local +ok(.|\n)*modal +\S"),
    ("parhelia status --json > status.json; cat status.json", 0, r'"config": \{{"ok": true'),
    ("parhelia config --json", 0, r'"default_timeout_hours": 4'),
    ("parhelia task show {live}", 0, r"(?m)^state: +running"),
    ("parhelia task show {full}", 0, r"out-of-memory(.|\n)*next: parhelia recover {full}"),
    ("parhelia task show {done} | grep gpu", 0, r"^gpu: +none$"),
    ("parhelia logs {live} --tail 100", 0, r"(?m)^up$"),
    ("parhelia logs {live} --tail 50", 0, r"(?m)^up$"),
    ("parhelia logs {done} > logs.txt; cat logs.txt", 0, r"(?m)^out$"),
    ("parhelia logs {done} | grep -i hook", 0, r"hook"),
    ("parhelia logs {done} | grep entrypoint", 0, r"session {done}\.1"),
    (r"parhelia logs {full} --tail 200 | grep -i 'error\|killed\|oom'", 0, r"oom: the session used"),
    (r"parhelia logs {killed} --tail 200 | grep -i 'error\|killed\|oom'", 0, r"killed"),
    ("parhelia budget show", 0, r"ceiling: +\$25\.00\nspent: (.|\n)*reserved: (.|\n)*remaining: "),
    ("parhelia list", 0, r"{live} +running(.|\n)*{done} +completed"),
    ("parhelia list --status running", 0, r"^TASK.*\n{live} +running.*\n$"),
    ("parhelia list --status completed | head -20", 0, r"^TASK.*\n{done} +completed.*\n$"),
    ("parhelia checkpoint list", 0, r"{second}(.|\n)*{first}"),
    ("parhelia checkpoint list --session {live}", 0, r"^CHECKPOINT.*\n{second} .*\n{first} .*\n$"),
    ("parhelia checkpoint list --older-than 7d", 0, r"^no checkpoints"),
    ("parhelia checkpoint diff {first} {second}", 0, r"~ .*a\.txt"),
    ("parhelia attach {live} --info-only", 0, r"^ssh .*"),
    ("parhelia session recover {full}", 1, r"cause: out-of-memory(.|\n)*next: parhelia recover {full} --yes"),
    ("parhelia session recover {killed}", 0, r"next: parhelia resume {killed}"),
    ("parhelia submit 'Task' --gpu A10G --provider modal --dry-run", 0, r"up to \$5\.00.*pays for 1\.9\d h"),
    ("parhelia submit 'Task' --memory 32 --provider modal --dry-run", 0, r"up to \$5\.00.*pays for 2\.9\d h"),
    ("parhelia submit 'Task' --gpu A10G", 4, r"^$"),
    (VALIDATE, 0, r"Hooks: no settings file"),
]


@pytest.mark.parametrize(("line", "code", "says"), TYPED, ids=[row[0][:60] for row in TYPED])
def test_a_line_that_people_are_told_to_type_shows_what_they_look_for(
    ward: SimpleNamespace, line: str, code: int, says: str
) -> None:
    names = {key: value for key, value in vars(ward).items() if key != "front"}
    done = typed(ward.front, line.format(**names) if line is not VALIDATE else line)
    assert done.returncode == code, done.stderr
    assert re.search(says.format(**names), done.stdout), done.stdout


def test_money_that_ran_out_is_said_and_raised(ward: SimpleNamespace) -> None:
    front = ward.front
    front.run("budget", "set", "0.01")
    refused = front.error("submit", "Task", code=4)
    assert refused["code"] == "over-budget"
    assert "parhelia budget set" in refused["hint"]
    front.run("budget", "set", "50.0")
    task = front.json("submit", "Task", "--memory", "32")["task_id"]
    assert (front.show(task)["memory_gb"], front.show(task)["gpu"]) == (32, None)
    front.run("session", "kill", task)
    front.run("budget", "set", "25")


def test_a_task_that_has_no_place_yet_says_what_it_waits_for(ward: SimpleNamespace) -> None:
    full = {"PARHELIA_LOCAL_MAX_SESSIONS": "1"}
    waiting = json.loads(ward.front.run("run", "-d", "--json", "--", "true", env=full).stdout)
    assert waiting["state"] == "pending"
    assert "1 of 1 local sessions run" in waiting["note"]


def test_settings_of_the_project_take_effect_in_its_tasks(users, tmp_path: Path) -> None:
    front = users("settings")
    front.repository()
    (front.cwd / "parhelia.toml").write_text('[modal]\nregion = "us-west"\ndefault_timeout_hours = 0.5\n')
    config = front.json("config")
    assert config["config"]["modal"]["region"] == "us-west"
    assert config["sources"]["modal.region"].endswith("parhelia.toml")
    anywhere = front.json("budget", "estimate", "--provider", "modal", "--timeout-hours", "1", cwd=tmp_path)
    (there,) = front.json("budget", "estimate", "--provider", "modal", "--timeout-hours", "1")["offers"]
    assert there["region"] == "us-west"
    assert there["usd_per_hour"] > anywhere["offers"][0]["usd_per_hour"]
    front.run("run", "--", "true")
    shown = front.show(front.json("list")["tasks"][0]["task_id"])
    began, ends = (datetime.fromisoformat(shown[name]) for name in ("started_at", "deadline"))
    assert (ends - began).total_seconds() == 1800


def test_a_checkpoint_that_is_missing_or_damaged_is_called_so_and_another_one_restores(users) -> None:
    front = users("restore")
    front.repository()
    task = front.submit("sh", "-c", "echo up; sleep 600")
    eventually(lambda: "up" in front.text("logs", task), what="its first line", within=120)
    workspace = Path(front.show(task)["workspace_path"])
    earlier = front.json("checkpoint", "create", task)["checkpoint_id"]
    (workspace / "big.bin").write_bytes(os.urandom(300_000))
    later = front.json("checkpoint", "create", task)["checkpoint_id"]
    front.run("session", "kill", task)
    assert "Checkpoint not found" in front.error("resume", task, "--checkpoint-id", "cp-00000000", code=3)["message"]
    before, after = (_packs(front, task, name) for name in (earlier, later))
    for name in after - before:
        (pack,) = front.home.glob(f"tasks/{task}/checkpoints/**/{name}*")
        damaged = bytearray(pack.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(damaged)
    target = front.root / "target" / "workspace"
    damage = front.error("resume", task, "--checkpoint-id", later, "--target", str(target), code=6)
    assert "Corrupted checkpoint" in damage["message"]
    assert not target.exists()
    assert front.json("resume", task, "--checkpoint-id", earlier, "--target", str(target))["files"] >= 1
    assert (target / "a.txt").read_text() == "one\n"
    assert front.json("resume", task, "--checkpoint-id", earlier)["session_id"] == f"{task}.2"
    front.run("session", "kill", task)


def _packs(front: Front, task: str, checkpoint: str) -> set[str]:
    (path,) = front.home.glob(f"tasks/{task}/checkpoints/manifests/{checkpoint.removeprefix('cp-')}*.json")
    return {pack["name"] for pack in json.loads(path.read_bytes())["packs"]}


def test_a_frozen_session_is_killed_and_recovered_by_the_lines_that_are_named(ward: SimpleNamespace) -> None:
    front = ward.front
    task = front.submit("sh", "-c", "echo half >> half.txt; sleep 600")
    eventually(lambda: "half" in front.text("checkpoint", "list") or front.show(task)["state"] == "running")
    assert typed(front, f"parhelia session kill {task}").returncode == 0
    said = typed(front, f"parhelia session recover {task}").stdout
    (following,) = re.findall(r"(?m)^next: (parhelia .*)$", said)
    assert typed(front, following).returncode == 0
    assert front.until(task, "running", within=120)["session_id"] == f"{task}.2"
    front.run("session", "kill", task)
    assert front.show(task)["result"]["branch"] == f"parhelia/{task}"


def test_hooks_that_do_nothing_are_found_and_the_remedy_makes_them_act(users) -> None:
    front = users("hooks")
    front.repository()
    hook = front.user_home / ".claude" / "hooks" / "my_hook.py"
    hook.parent.mkdir(parents=True)
    hook.write_text("import sys\nsys.exit(0)\n")
    settings = hook.parent.parent / "settings.json"
    settings.write_text('{"hooks": {"PreToolUse": [{"hooks": ["~/.claude/hooks/my_hook.py"]}]}}')
    found = front.json("hooks", "validate", code=2)["findings"]
    assert [one["severity"] for one in found].count("error") >= 1
    assert front.run("hooks", "validate", "--run", "--fix", code=None).returncode in (0, 2)
    repaired = json.loads(settings.read_text())["hooks"]["PreToolUse"][0]["hooks"][0]
    assert repaired["type"] == "command"
    assert "my_hook.py" in repaired["command"]
    settings.write_text(json.dumps({"hooks": {"PreToolUse": [{"hooks": [{"type": "command", "command": str(hook)}]}]}}))
    assert "chmod +x" in front.text("hooks", "validate", code=2)
    hook.chmod(0o755)
    assert "#!" in front.text("hooks", "validate", code=2)
    hook.write_text("#!/usr/bin/env python3\n" + hook.read_text())
    front.run("hooks", "validate", "--run")
