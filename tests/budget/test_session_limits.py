"""Limits inside a session, from the front door: the agent is told, the session ends with its work kept, resume goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from parhelia_mcp import files, processes, spec
from tests.budget.proof import prove
from tests.claude_client import claude_path
from tests.fake_api import fake_api, say, use
from tests.front import Front, eventually
from tests.inside.session import Session

KEY = "sk-ant-the-key-that-nobody-gets"
LARGE = {"input_tokens": 20_000, "output_tokens": 10_000}  # $0.35 on Opus 4.8


@pytest.fixture
def front(users: Callable[..., Front]) -> Front:
    made = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY=KEY)
    config = made.user_home / ".config" / "parhelia"
    config.mkdir(parents=True)
    (config / "parhelia.toml").write_text('[agent]\npermission_mode = "bypassPermissions"\nmodel = "claude-opus-4-8"\n')
    return made


def events(front: Front, task: str, number: int = 1) -> list[dict]:
    text = (front.home / "tasks" / task / "sessions" / str(number) / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_agent_is_told_at_the_soft_limit_ended_at_the_hard_one_and_goes_on_when_resumed(
    front: Front, repo: Path
) -> None:
    work = use("Bash", command="date +%N >> steps.txt; sleep 0.3").but(usage=LARGE, times=0)
    front.run("budget", "set", "2")
    with fake_api([work]) as api:
        env = {"ANTHROPIC_BASE_URL": api.url}
        task = front.json("submit", "go on for ever", "--max-usd", "2", env=env)["task_id"]
        ended = front.until(task, "failed", "completed", within=120)
        assert (ended["state"], ended["reason"]) == ("failed", "over-budget")
        assert f"${ended['spent_usd']:.2f} of the $2.00" in ended["detail"]
        assert f"parhelia resume {task}" in ended["detail"]
        assert ended["spent_usd"] <= 2
        told = [seen for seen in api.messages if b"[Parhelia]" in seen.raw]
        assert api.messages[-1] in told
        assert api.messages[0] not in told
        assert [event["text"] for event in events(front, task) if "soft limit" in event["text"]]
        kept = front.json("checkpoint", "list", "--session", task, env=env)["checkpoints"]
        assert kept[0]["consistent"] is True
        steps = front.git("show", f"parhelia/{task}:steps.txt").splitlines()
        assert steps

        refused = front.error("resume", task, code=4, env={**env, "CLAUDECODE": "1"})
        assert (refused["code"], f"type: parhelia resume {task}" in refused["hint"]) == ("over-task-limit", True)
        refused = front.error("resume", task, code=4, env=env)
        assert refused["code"] == "over-budget"
        front.run("budget", "set", "5")
        api.replace(use("Bash", command="echo last >> steps.txt"), say("All done."))
        assert front.json("resume", task, env=env)["session_id"] == f"{task}.2"
        done = front.until(task, "failed", "completed", within=120)
    assert (done["state"], done["session_id"]) == ("completed", f"{task}.2")
    assert front.git("show", f"{done['result']['ref']}:steps.txt").splitlines() == [*steps, "last"]
    assert b"go on for ever" in api.messages[-1].raw
    spent, reserved = prove(front.home / "parhelia.db")
    assert (spent <= 5_000_000, reserved) == (True, 0)


def test_the_key_is_nowhere_but_with_the_runner_while_it_works_and_after(
    front: Front, repo: Path, tmp_path: Path
) -> None:
    look = "(env; cat /proc/self/environ /proc/$PPID/environ) > seen.txt; touch looked; while [ ! -e go ]; do sleep 0.1; done"
    with fake_api([use("Bash", command=look), say("done")]) as api:
        argv = front.command("submit", "look around", "--json")
        env = {"ANTHROPIC_BASE_URL": api.url}
        task = json.loads(front.run(*argv[1:], env=env).stdout)["task_id"]
        workspace = front.home / "tasks" / task / "workspace"
        eventually((workspace / "looked").exists, what="the agent to have looked")
        front.run("checkpoint", "create", task)
        state = files.read_json(front.home / "tasks" / task / "sessions" / "1" / "state.json")
        controller = int((front.home / "controller.lock").read_text())
        running = {controller, state["runner"]["pid"], state["guard"]["pid"], *processes.members(f"{task}.1")}
        assert len(running) >= 5
        for pid, name in itertools.product(running, ("environ", "cmdline")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                assert KEY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
        assert holders(front.home) == []
        (workspace / "go").touch()
        front.until(task, "completed", within=120)
        assert {seen.token for seen in api.messages} == {KEY}
        assert not [seen for seen in api.requests if KEY.encode() in seen.raw]
    assert b"PARHELIA_SESSION" in (workspace / "seen.txt").read_bytes()
    assert holders(front.root) == []
    restored = tmp_path / "restored"
    front.run("resume", task, "--target", str(restored))
    assert holders(restored) == []


def holders(folder: Path) -> list[Path]:
    """The files that hold the key in clear."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = files.read_at(path, 0, 1 << 26)
            found += [path] if KEY.encode() in data else []
    return found


def test_a_session_ends_at_its_paid_time_with_nobody_there(users: Callable[..., Front]) -> None:
    front = users(PARHELIA_PRICES_LOCAL_USD_PER_HOUR="60")
    front.repository()
    task = front.submit(
        "sh", "-c", "trap '' TERM; while :; do :; done", env={"PARHELIA_MODAL_DEFAULT_TIMEOUT_HOURS": "0.004"}
    )
    front.until(task, "running")
    lock = front.home / "controller.lock"
    os.kill(int(eventually(lambda: lock.read_text().strip(), what="the controller")), signal.SIGKILL)
    assert processes.members(f"{task}.1")
    eventually(lambda: not processes.members(f"{task}.1"), within=120, what="every process of the session to end")
    gone = time.monotonic()
    ended = front.until(task, "failed")
    assert ended["reason"] == "timeout"
    assert time.monotonic() - gone < 30
    spent, reserved = prove(front.home / "parhelia.db")
    assert 0 < spent <= 240_000
    assert reserved == 0


def test_a_session_that_does_nothing_is_ended_one_at_full_cpu_is_not_and_a_question_has_its_own_time(
    tmp_path: Path,
) -> None:
    busy = "timeout 20 sh -c 'while :; do :; done'; touch done"
    wanted = {
        "idle": ("sleep 600", spec.Limits(no_progress_minutes=0.2), "bypassPermissions"),
        "busy": (busy, spec.Limits(no_progress_minutes=0.2), "bypassPermissions"),
        "asks": ("touch asked", spec.Limits(no_progress_minutes=0.5, waiting_hours=0.003), "default"),
    }
    with contextlib.ExitStack() as stack:
        sessions = {}
        for name, (command, limits, mode) in wanted.items():
            api = stack.enter_context(fake_api([use("Bash", command=command), say("done")]))
            session = sessions[name] = Session(tmp_path / name)
            stack.callback(session.end)
            session.start(credential={"kind": "api-key", "value": KEY})
            told = {"program": str(claude_path()), "model": "opus", "credential_kind": "api-key"}
            spec.Spec(
                task=session.task,
                session=session.name,
                workspace=spec.Workspace("empty"),
                sizes={},
                limits=limits,
                agent=spec.Agent("claude", upstream=api.url, permission_mode=mode, **told),
                checkpoint=spec.CheckpointPolicy(),
                prompt="go",
            ).write(session.root / "spec.json")
        results = {name: session.result() for name, session in sessions.items()}
    assert (results["idle"]["state"], results["idle"]["reason"]) == ("failed", "no-progress")
    assert "Bash sleep 600" in sessions["idle"].text()
    assert [event["trigger"] for event in sessions["idle"].events() if event["kind"] == "checkpoint"] == ["error"]
    assert results["busy"]["state"] == "completed", results["busy"]
    assert (sessions["busy"].workspace / "done").exists()
    assert results["asks"]["reason"] == "no-progress"
    assert "nobody answered" in results["asks"]["detail"]
    (announced,) = (event["why"] for event in sessions["asks"].events() if event["kind"] == "waiting")
    assert "touch asked" in announced
