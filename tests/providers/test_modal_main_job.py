"""The main job with `--provider modal`, from the front door, while Modal behaves and while it does not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from parhelia_mcp.model import now, timestamp
from tests.claude_client import claude_path
from tests.fake_api import fake_api, say, use
from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback
from tests.terminal import Terminal

ON_MODAL = {"PARHELIA_PROVIDER": "modal", "PARHELIA_MODAL_CPU": "1", "PARHELIA_MODAL_MEMORY": "1"}


@pytest.fixture
def cloud(users: Callable[..., Front], loopback: Loopback) -> Front:
    """A user whose sessions run on the loopback Modal."""
    user = users(**loopback.env, **ON_MODAL)
    user.repository()
    return user


def of(loopback: Loopback, task: str, *, live: bool | None = None) -> list[dict]:
    """The sandboxes of a task as Modal has them."""
    found = [one for one in loopback.record()["sandboxes"] if one["name"].startswith(task)]
    return [one for one in found if live is None or one["live"] is live]


def test_a_command_runs_on_modal_and_its_work_lands_as_a_branch(cloud: Front, loopback: Loopback) -> None:
    (cloud.cwd / "new.txt").write_text("untracked\n")
    script = "cat a.txt new.txt; echo more >> a.txt; echo bad >&2; exit 4"
    done = cloud.run("run", "--", "sh", "-c", script, code=4)
    assert done.stdout == b"one\nuntracked\n"
    assert b"bad\n" in done.stderr
    task = cloud.json("list")["tasks"][0]
    assert (task["state"], task["provider"]) == ("failed", "modal")
    assert cloud.git("show", f"parhelia/{task['task_id']}:a.txt") == "one\nmore\n"
    assert of(loopback, task["task_id"], live=True) == []
    assert loopback.record()["unimplemented"] == []


def test_last_words_arrive_though_the_session_ended_between_two_looks(cloud: Front) -> None:
    cloud.env["PARHELIA_FAILPOINT"] = "watch.result:sleep=2"
    task = cloud.submit("sh", "-c", "echo first; sleep 4; echo last $((6 * 7))")
    cloud.until(task, "completed", within=120)
    assert "last 42" in cloud.text("logs", task)


def test_claude_code_works_on_modal_and_commits(cloud: Front, loopback: Loopback) -> None:
    instructions = cloud.user_home / ".claude" / "CLAUDE.md"
    instructions.parent.mkdir()
    instructions.write_text("Write like a FALCON.\n")
    with fake_api(
        [use("Bash", command="echo hello > hello.txt && git add -A && git commit -qm Hello"), say("Done.")]
    ) as api:
        loopback.egress(urlsplit(api.url).port)
        keys = {"ANTHROPIC_API_KEY": "sk-dummy", "ANTHROPIC_BASE_URL": api.url}
        said = cloud.json("submit", "write it", env={**keys, "PARHELIA_AGENT_COMMAND": str(claude_path())})
        cloud.until(said["task_id"], "completed", within=120)
        assert {request.token for request in api.messages} == {"sk-dummy"}
        assert b"FALCON" in api.messages[-1].raw
    branch = f"parhelia/{said['task_id']}"
    assert cloud.git("show", f"{branch}:hello.txt") == "hello\n"
    assert "Done." in cloud.text("logs", said["task_id"])
    assert cloud.show(said["task_id"])["spent_usd"] > 0


def test_a_key_that_only_modal_keeps_reaches_the_api_and_not_the_agent(cloud: Front, loopback: Loopback) -> None:
    loopback.secret("anthropic", ANTHROPIC_API_KEY="sk-kept-by-modal")
    _configure(
        cloud, f'[agent]\ncommand = "{claude_path()}"\ncredential = "modal-secret:anthropic:ANTHROPIC_API_KEY"\n'
    )
    with fake_api([use("Bash", command="env > seen.txt; git add -A; git commit -qm Seen"), say("Done.")]) as api:
        loopback.egress(urlsplit(api.url).port)
        task = cloud.json("submit", "look", env={"ANTHROPIC_BASE_URL": api.url})["task_id"]
        cloud.until(task, "completed", within=120)
        assert {request.token for request in api.messages} == {"sk-kept-by-modal"}
    seen = cloud.git("show", f"parhelia/{task}:seen.txt")
    assert "PARHELIA_SESSION" in seen
    assert "sk-kept-by-modal" not in seen


def test_the_agent_sees_the_variables_that_its_secrets_name_and_no_others(cloud: Front, loopback: Loopback) -> None:
    loopback.secret("huggingface", HF_TOKEN="hf-seen", HF_ADMIN="hf-hidden")
    loopback.secret("anthropic", ANTHROPIC_API_KEY="sk-hidden", CLAUDE_CODE_OAUTH_TOKEN="oa-hidden")
    _configure(
        cloud, '[modal]\nsecrets = ["huggingface:HF_TOKEN", "anthropic:ANTHROPIC_API_KEY,CLAUDE_CODE_OAUTH_TOKEN"]\n'
    )
    shown = cloud.run("run", "--", "env").stdout.decode()
    assert "HF_TOKEN=hf-seen\n" in shown
    assert "hidden" not in shown


def _configure(cloud: Front, text: str) -> None:
    folder = Path(cloud.env["HOME"]) / ".config" / "parhelia"
    folder.mkdir(parents=True)
    (folder / "parhelia.toml").write_text(text)


def test_the_real_ssh_client_reaches_a_session_through_the_tunnel(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sh", "-c", "echo up; sleep 300")
    cloud.until(task, "running")
    config = cloud.root / "ssh_config"
    config.write_bytes(eventually(lambda: cloud.run("ssh-config", task, code=None).stdout, what="the ssh server"))
    argv = ["ssh", "-F", str(config), f"parhelia-{task}", "cat a.txt; pwd"]

    def reached() -> str:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout

    assert eventually(reached, within=120, what="an answer over ssh").startswith("one\n")
    cloud.run("session", "kill", task)


def test_kill_ends_the_sandbox_and_gives_the_reservation_back(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sh", "-c", "echo up; sleep 300")
    cloud.until(task, "running")
    cloud.run("session", "kill", task)
    assert cloud.until(task, "killed")["reserved_usd"] == 0
    assert of(loopback, task, live=True) == []


def test_a_sandbox_that_vanishes_is_lost_and_keeps_what_was_seen(cloud: Front, loopback: Loopback) -> None:
    task = cloud.submit("sh", "-c", "echo seen; sleep 300")
    eventually(lambda: "seen" in cloud.text("logs", task), what="the first output")
    loopback.vanish(cloud.show(task)["session_id"])
    shown = cloud.until(task, "lost")
    assert (shown["reason"], shown["reserved_usd"]) == ("provider-lost", 0)
    assert "seen" in cloud.text("logs", task)


def test_a_lost_reply_to_submit_makes_one_sandbox_and_one_reservation(cloud: Front, loopback: Loopback) -> None:
    loopback.faults({"rpc": "SandboxCreateV2", "action": "lose", "times": 1, "status": "UNAVAILABLE"})
    task = cloud.submit("sh", "-c", "echo once; sleep 300")
    cloud.until(task, "running", within=120)
    assert len(of(loopback, task)) == 1
    money = cloud.json("budget", "show")
    assert 0 < money["reserved_usd"] + money["spent_usd"] <= money["ceiling_usd"]
    cloud.run("session", "kill", task)


def test_a_kill_ends_the_sandbox_whose_creation_was_never_answered(cloud: Front, loopback: Loopback) -> None:
    loopback.faults({"rpc": "SandboxCreateV2", "action": "lose"})
    task = cloud.submit("sh", "-c", "echo up; sleep 300")
    eventually(lambda: of(loopback, task, live=True), within=120, what="the sandbox")
    cloud.run("session", "kill", task, code=None)
    assert cloud.until(task, "killed", within=120)["reserved_usd"] == 0
    assert of(loopback, task, live=True) == []


def test_a_start_that_took_too_long_leaves_no_sandbox_whose_creation_was_never_answered(
    cloud: Front, loopback: Loopback
) -> None:
    loopback.faults({"rpc": "SandboxCreateV2", "action": "lose"})
    task = cloud.submit("sh", "-c", "echo up; sleep 300")
    eventually(lambda: of(loopback, task, live=True), within=120, what="the sandbox")
    long_ago = timestamp(now() - timedelta(minutes=31))
    with contextlib.closing(sqlite3.connect(cloud.home / "parhelia.db")) as db:
        db.execute("UPDATE sessions SET created_at = ?", (long_ago,))
        db.commit()
    ended = cloud.until(task, "failed", within=120)
    assert (ended["reason"], ended["reserved_usd"]) == ("start-timeout", 0)
    assert of(loopback, task, live=True) == []


def test_a_gpu_that_does_not_come_leaves_the_task_pending_and_says_why(cloud: Front, loopback: Loopback) -> None:
    loopback.machines(False)
    began = time.monotonic()
    said = cloud.run("run", "-d", "--json", "--gpu", "A10G", "--timeout-hours", "1", "--", "true")
    task = json.loads(said.stdout)["task_id"]
    assert time.monotonic() - began < 20
    shown = cloud.show(task)
    assert shown["state"] == "pending"
    eventually(lambda: "A10" in (cloud.show(task)["observed_why"] or ""), what="the reason")
    loopback.machines(True)
    cloud.until(task, "completed", within=120)
    assert len([one for one in of(loopback, task) if one["live"]]) == 0


def test_status_asks_through_the_controller_and_answers_in_time_while_modal_is_frozen(
    cloud: Front, loopback: Loopback
) -> None:
    task = cloud.submit("sh", "-c", "echo up; sleep 300")
    cloud.until(task, "running")

    def asked_without_a_new_client() -> bool:
        before = loopback.record()["seen"]
        assert cloud.json("status")["providers"][1]["what"].startswith("reached; 1 ")
        seen = loopback.record()["seen"]
        assert seen["SandboxListV2"] > before.get("SandboxListV2", 0)
        return seen["AuthTokenGet"] == before["AuthTokenGet"]

    eventually(asked_without_a_new_client, within=120, what="the controller to answer")
    elsewhere = {"MODAL_SERVER_URL": "http://127.0.0.1:1"}
    assert not cloud.json("status", env=elsewhere, code=5)["providers"][1]["observed"]
    os.kill(loopback.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = cloud.run("status", code=5)
        assert time.monotonic() - began < 6  # 3 s on a machine that does nothing else
        assert b"last observed" in done.stdout
    finally:
        os.kill(loopback.pid, signal.SIGCONT)
    assert cloud.show(task)["state"] == "running"
    cloud.run("session", "kill", task)


def test_a_missing_secret_refuses_the_task_and_reserves_nothing(cloud: Front) -> None:
    _configure(cloud, '[modal]\nsecrets = ["absent:TOKEN"]\n')
    done = cloud.run("run", "-d", "--", "true", code=None)
    task = cloud.json("list")["tasks"][0]["task_id"]
    shown = cloud.until(task, "failed")
    assert (shown["reason"], shown["reserved_usd"]) == ("start-failed", 0)
    assert "modal secret create absent" in shown["detail"] + done.stderr.decode()


def test_a_person_who_waits_sees_the_image_being_built_and_the_upload(cloud: Front, loopback: Loopback) -> None:
    (cloud.cwd / "big.bin").write_bytes(os.urandom(4_000_000))
    loopback.faults(
        {"rpc": "ImageGetOrCreate", "action": "slow", "seconds": 9, "times": 1},
        {"rpc": "TaskExecStdinWrite", "action": "slow", "seconds": 0.4},
    )
    shown = Terminal(cloud, "run", "--", "echo", "done", wide=200).end(within=120)
    assert re.search(r"\r\x1b\[KModal builds the image, \d+ s so far", shown), shown
    assert re.search(r"sending the workspace: [\d.]+ MB of 4\.\d MB", shown), shown
    assert "\x1b[K" not in shown[shown.index("done\n") :], "the line is gone before the output comes"
    assert "\x1b" not in cloud.text("logs", cloud.json("list")["tasks"][0]["task_id"])


def test_a_sandbox_of_which_nobody_heard_is_ended_with_its_task_and_paid_for(cloud: Front, loopback: Loopback) -> None:
    loopback.faults({"rpc": "SandboxCreateV2", "action": "lose"})
    task = cloud.submit("sleep", "600")
    begun = f"state/volumes/*/tasks/{task}/sessions/1"
    eventually(lambda: list(loopback.folder.glob(begun)), what="the runner of the sandbox")
    cloud.run("session", "kill", task)
    killed = cloud.until(task, "killed")
    assert (killed["spent_usd"] > 0, killed["reserved_usd"]) == (True, 0)
    assert of(loopback, task, live=True) == []


def test_a_session_whose_delivery_nobody_noted_is_judged_by_what_it_left(cloud: Front, loopback: Loopback) -> None:
    dies = {"PARHELIA_FAILPOINT": "deliver.spec:kill9"}
    cloud.run("run", "-d", "--", "sh", "-c", "echo done > out.txt", env=dies, code=None)
    (row,) = cloud.json("list", env=dies)["tasks"]
    eventually(lambda: of(loopback, row["task_id"], live=False), what="its end")
    assert cloud.until(row["task_id"], "completed", "failed", "lost")["state"] == "completed"
    assert cloud.git("show", f"parhelia/{row['task_id']}:out.txt") == "done\n"


def test_a_command_that_leaves_while_modal_is_asked_for_a_token_says_nothing_of_it(
    cloud: Front, loopback: Loopback
) -> None:
    loopback.faults({"rpc": "AuthTokenGet", "action": "hang"})
    task = cloud.submit("sh", "-c", "echo up")
    shown = cloud.run("task", "show", task, "--json")  # held to have no traceback
    assert shown.stderr == b""
    loopback.faults()
    cloud.until(task, "completed", within=120)
