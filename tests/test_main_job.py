"""The main job from the front door: hand over, follow, get it back as a branch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.front import Front, eventually


def user_side(front: Front) -> tuple[str, ...]:
    """Everything of the user's repository that must stay byte for byte."""
    git = front.cwd / ".git"
    return (
        front.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/tags", "refs/stash"),
        (git / "HEAD").read_text(),
        (git / "index").read_bytes().hex(),
        front.git("status", "--porcelain=v2", "--ignored"),
        front.git("stash", "list"),
    )


def test_a_command_runs_on_the_uncommitted_workspace_and_its_work_lands_as_a_branch(front: Front, repo: Path) -> None:
    (repo / "a.txt").write_text("one\ntwo\n")
    (repo / "new.txt").write_text("untracked\n")
    before = user_side(front)
    done = front.run(
        "run",
        "--",
        "sh",
        "-c",
        "cat a.txt new.txt; echo made > made.txt; git add made.txt; git commit -qm made; echo three >> a.txt",
    )
    assert done.stdout == b"one\ntwo\nuntracked\n"
    task = front.json("list")["tasks"][0]
    assert (task["state"], task["provider"]) == ("completed", "local")
    shown = front.show(task["task_id"])
    assert shown["result"]["ref"] == f"refs/parhelia/{task['task_id']}/1"
    branch = f"parhelia/{task['task_id']}"
    assert front.git("show", f"{branch}:a.txt") == "one\ntwo\nthree\n"
    assert front.git("log", "--format=%s", f"main..{branch}").splitlines()[1] == "made"
    assert user_side(front) == before


def test_run_passes_both_streams_byte_for_byte_and_the_exit_code(front: Front, repo: Path) -> None:
    script = r"printf '\000\377a\r\n'; printf 'b\033[31m' >&2; exit 42"
    done = front.run("run", "--", "sh", "-c", script, code=42)
    assert done.stdout == b"\x00\xffa\r\n"
    assert done.stderr.startswith(b"b\x1b[31m")


def test_a_command_that_does_not_exist_ends_in_127(front: Front, repo: Path) -> None:
    front.run("run", "--", "no-such-program-here", code=127)


def test_a_failed_session_still_lands_its_work(front: Front, repo: Path) -> None:
    front.run("run", "--", "sh", "-c", "echo half > half.txt; exit 9", code=9)
    shown = front.show(front.json("list")["tasks"][0]["task_id"])
    assert (shown["state"], shown["reason"], shown["exit_code"]) == ("failed", "agent-exit", 9)
    assert front.git("show", f"{shown['result']['branch']}:half.txt") == "half\n"


def test_a_killed_session_stays_dead_with_every_child_and_lands_its_work(
    front: Front, repo: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"echo part > part.txt; setsid sleep 600 & echo $! >> {pids}; (sleep 601 & echo $! >> {pids}); echo $$ >> {pids}; wait; sleep 600"
    task = front.submit("sh", "-c", script)
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 3, what="the children")
    killed = front.json("session", "kill", task)
    assert killed["state"] == "killed"
    for pid in map(int, pids.read_text().split()):
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    shown = front.show(task)
    assert (shown["state"], shown["reason"]) == ("killed", "killed-by-user")
    assert front.git("show", f"parhelia/{task}:part.txt") == "part\n"
    assert front.json("session", "kill", task)["note"]


def test_ctrl_c_on_run_kills_the_session(front: Front, repo: Path) -> None:
    process = front.start("run", "--", "sh", "-c", "echo up; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    assert process.returncode == 130
    assert front.json("list")["tasks"][0]["state"] == "killed"


def test_work_lands_with_no_command_of_the_user_running(front: Front, repo: Path) -> None:
    """The controller alone brings it home: git, which knows nothing of Parhelia, sees the branch."""
    task = front.submit("sh", "-c", "echo alone > alone.txt")
    eventually(lambda: f"parhelia/{task}" in front.git("branch", "--list", "parhelia/*"), what="the branch")
    assert front.git("show", f"parhelia/{task}:alone.txt") == "alone\n"


def test_killing_the_controller_loses_nothing(front: Front, repo: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    task = front.submit("sh", "-c", f"while [ ! -e {go} ]; do sleep 0.05; done; echo late > late.txt")
    lock = front.home / "controller.lock"
    pid = eventually(lambda: lock.exists() and lock.read_text().strip(), what="the controller")
    os.kill(int(pid), signal.SIGKILL)
    go.touch()
    assert front.until(task, "completed")["result"]["files_changed"] == 1
    again = eventually(lambda: lock.read_text().strip(), what="the next controller")
    assert again


def test_a_session_survives_the_terminal_and_the_process_group_that_started_it(
    front: Front, repo: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    process = front.start(
        "run",
        "-d",
        "--json",
        "--",
        "sh",
        "-c",
        f"while [ ! -e {go} ]; do sleep 0.05; done; exit 5",
        start_new_session=True,
    )
    out, _ = process.communicate(timeout=30)
    task = json.loads(out)["task_id"]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert front.until(task, "running")["observed"] is True
    go.touch()
    assert front.until(task, "failed")["exit_code"] == 5


def test_two_sessions_at_once_do_not_disturb_each_other(front: Front, repo: Path) -> None:
    tasks = [front.submit("sh", "-c", f"echo {n} > n.txt; sleep 0.3; cat n.txt") for n in (1, 2)]
    for number, task in enumerate(tasks, 1):
        front.until(task, "completed")
        assert front.text("logs", task, "--stream", "output") == f"{number}\n"
        assert front.git("show", f"parhelia/{task}:n.txt") == f"{number}\n"


def test_a_directory_without_git_comes_back_with_pull_apply(front: Front) -> None:
    (front.cwd / "data.txt").write_text("1\n")
    front.run("run", "--", "sh", "-c", "echo 2 >> data.txt; echo n > n.txt")
    task = front.json("list")["tasks"][0]["task_id"]
    assert (front.cwd / "data.txt").read_text() == "1\n"
    pulled = front.json("pull", task, "--apply")
    assert pulled["applied"] is True
    assert (front.cwd / "data.txt").read_text() == "1\n2\n"
    assert (front.cwd / "n.txt").read_text() == "n\n"


def test_pull_apply_merges_into_the_tree_and_refuses_conflicts_whole(front: Front, repo: Path) -> None:
    front.run("run", "--", "sh", "-c", "echo theirs > a.txt; echo other > b.txt")
    task = front.json("list")["tasks"][0]["task_id"]
    (repo / "a.txt").write_text("mine\n")
    error = front.error("pull", task, "--apply", code=4)
    assert error["code"] == "conflicts"
    assert "a.txt" in error["message"]
    assert (repo / "a.txt").read_text() == "mine\n"
    assert not (repo / "b.txt").exists()
    (repo / "a.txt").write_text("one\n")
    front.json("pull", task, "--apply")
    assert (repo / "a.txt").read_text() == "theirs\n"
    assert (repo / "b.txt").read_text() == "other\n"


def test_strange_arguments_arrive_byte_identical(front: Front, repo: Path) -> None:
    strange = ["$(touch pwned)", "`id`", "a'b\"c", "line\nbreak", "ünïcödé 🚀", "--json", "", "*"]
    done = front.run("run", "--", "python3", "-c", "import sys,json; print(json.dumps(sys.argv[1:]))", *strange)
    assert json.loads(done.stdout) == strange
    assert not (repo / "pwned").exists()


def test_run_json_prints_one_object_with_the_output_path(front: Front, repo: Path) -> None:
    done = front.run("run", "--json", "--", "echo", "hello")
    value = json.loads(done.stdout)
    assert Path(value["output_path"]).read_bytes() == b"hello\n"
    assert value["exit_code"] == 0


def test_the_log_begins_with_how_it_started_and_ends_with_what_ended_it(front: Front, repo: Path) -> None:
    front.run("run", "--", "sh", "-c", "echo before; exit 3", code=3)
    task = front.json("list")["tasks"][0]["task_id"]
    lines = front.text("logs", task).splitlines()
    for number, word in enumerate(("entrypoint", "config", "hook", "workspace")):
        assert word in lines[number]
    assert "before" in lines
    assert "error" in lines[-1]
    assert front.text("logs", task, "--tail", "2").splitlines() == lines[-2:]
    assert front.json("logs", task, "--tail", "100")["lines"][-1]["text"] in lines[-1]


def test_logs_follow_streams_until_the_end(front: Front, repo: Path) -> None:
    task = front.submit("sh", "-c", "for i in 1 2 3; do echo tick $i; sleep 0.1; done")
    followed = front.text("logs", task, "--follow")
    assert [line for line in followed.splitlines() if line.startswith("tick")] == ["tick 1", "tick 2", "tick 3"]
    assert followed.splitlines() == front.text("logs", task).splitlines()


def test_a_session_past_its_time_is_ended_and_says_so(front: Front, repo: Path) -> None:
    done = front.run("run", "--timeout-hours", "0.0004", "--", "sh", "-c", "echo kept > kept.txt; sleep 600", code=None)
    assert done.returncode == 125
    shown = front.show(front.json("list")["tasks"][0]["task_id"])
    assert (shown["state"], shown["reason"]) == ("failed", "timeout")
    assert front.git("show", f"{shown['result']['branch']}:kept.txt") == "kept\n"


def test_ids_may_be_prefixes_and_ambiguity_is_listed(front: Front, repo: Path) -> None:
    task = front.submit("true")
    front.until(task, "completed")
    assert front.show(task[5:9])["task_id"] == task
    assert front.show(f"{task}.1")["session_id"] == f"{task}.1"
    assert front.error("task", "show", task[5:8], code=2)["code"] == "bad-id"
    assert front.error("task", "show", "task-zzzzzzzz", code=3)["code"] == "unknown-id"
    assert front.error("session", "kill", task[5:9], code=2)["code"] == "prefix-refused"


def test_states_are_taken_in_any_case(front: Front, repo: Path) -> None:
    front.run("run", "--", "true")
    assert len(front.json("list", "--status", "COMPLETED")["tasks"]) == 1
    assert front.json("list", "--status", "running")["tasks"] == []
    assert "running" in front.error("list", "--status", "runing", code=2)["hint"]


def test_an_agent_that_is_missing_or_has_no_credential_is_said_before_anything_starts(front: Front, repo: Path) -> None:
    missing = front.error("submit", "do it", code=4, env={"PARHELIA_AGENT_COMMAND": "no-such-agent"})
    assert missing["code"] == "agent-missing"
    assert "npm install" in missing["hint"]
    keyless = front.error("submit", "do it", code=4, env={"PARHELIA_AGENT_COMMAND": "true"})
    assert keyless["code"] == "credential-missing"
    assert front.json("list")["tasks"] == []


def test_sixteen_first_commands_at_once_all_work(front: Front, repo: Path) -> None:
    started = [front.start("list", "--json") for _ in range(16)]
    for process in started:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert json.loads(out)["tasks"] == []
    assert front.home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in front.home.iterdir() if path.is_file()} == {0o600}


def test_closing_the_reader_is_silent(front: Front, repo: Path) -> None:
    front.run("run", "--", "sh", "-c", "seq 200000")
    task = front.json("list")["tasks"][0]["task_id"]
    process = front.start("logs", task)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.wait(timeout=20)


def test_two_hundred_megabytes_of_output_stay_out_of_memory(users: Callable[..., Front]) -> None:
    front = users()
    front.repository()
    task = front.submit("sh", "-c", "head -c 200000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo last")
    front.until(task, "completed", within=120)
    watched = subprocess.run(
        [
            "/usr/bin/env",
            "python3",
            "-c",
            "import resource,subprocess,sys; subprocess.run(sys.argv[1:],check=True,stdout=sys.stderr); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
            *front.command("logs", task, "--tail", "100"),
        ],
        cwd=front.cwd,
        env=front.env,
        capture_output=True,
        check=True,
        timeout=60,
    )
    lines = watched.stderr.decode().splitlines()
    assert len(lines) == 100
    assert any(line.endswith("last") for line in lines)
    assert int(watched.stdout) < 120_000, "kilobytes for the command line as a whole"
