"""Checkpoints from the front door: taken, compared, verified, brought home, gone on from."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.front import Front, eventually


def two_steps(front: Front, go: Path) -> str:
    """A command session that writes one file, waits for `go`, writes another."""
    return front.submit(
        "sh", "-c", f"echo 1 > one.txt; mkdir -p empty; while [ ! -e {go} ]; do sleep 0.05; done; echo 2 > two.txt"
    )


@pytest.fixture
def kept(front: Front, repo: Path, tmp_path: Path) -> tuple[str, str, str]:
    """A finished task with a manual checkpoint before its second file and the one of its end."""
    go = tmp_path / "go"
    task = two_steps(front, go)
    folder = front.home / "tasks" / task / "workspace"
    eventually(lambda: (folder / "empty").is_dir(), what="the first step")
    front.until(task, "running")
    first = front.json("checkpoint", "create", task, "-m", "half way")["checkpoint_id"]
    go.touch()
    front.until(task, "completed")
    last = front.json("checkpoint", "list", "--session", task)["checkpoints"][0]
    assert (last["trigger"], last["consistent"], last["partial"]) == ("complete", True, False)
    return task, first, last["checkpoint_id"]


def test_two_checkpoints_are_compared_and_verified(front: Front, kept: tuple[str, str, str]) -> None:
    _, first, last = kept
    difference = front.json("checkpoint", "diff", first, last)
    work = {
        kind: [path for path in paths if not path.startswith("extra")]
        for kind, paths in difference.items()
        if kind in ("added", "changed", "removed")
    }
    assert [path for path in work["added"] if "two.txt" in path] == work["added"]
    assert work["changed"] == work["removed"] == []
    assert "+2" in front.text("checkpoint", "diff", first, last, "two.txt")
    assert "two.txt" in front.text("checkpoint", "diff", first, last, "--stat")
    assert front.json("checkpoint", "verify", last)["ok"] is True
    shown = front.json("checkpoint", "show", first)
    assert shown["trigger"] == "manual"
    assert {
        "checkpoint_id",
        "session_id",
        "created_at",
        "consistent",
        "files",
        "bytes",
        "stored_bytes",
        "expires_at",
    } <= shown.keys()


def test_a_checkpoint_comes_home_and_never_over_something_unasked(
    front: Front, kept: tuple[str, str, str], tmp_path: Path
) -> None:
    task, first, last = kept
    target = tmp_path / "home"
    restored = front.json("resume", task, "--target", str(target))
    assert restored["checkpoint_id"] == last
    assert (target / "empty").is_dir()
    assert (target / "two.txt").read_text() == "2\n"
    (target / "mine.txt").write_text("mine\n")
    refused = front.error("resume", task, "--target", str(target), "--checkpoint-id", first, code=4)
    assert refused["code"] == "target-not-empty"
    assert "mine.txt" in refused["message"]
    forced = front.json("resume", task, "--target", str(target), "--checkpoint-id", first, "--force")
    assert not (target / "two.txt").exists()
    saved = front.json("checkpoint", "list", "--session", task)["checkpoints"][0]
    assert saved["trigger"] == "safety"
    assert saved["checkpoint_id"] in forced["saved"]
    assert (target.with_name("home.1") / "mine.txt").read_text() == "mine\n"


def test_resume_goes_on_as_the_next_session_from_the_checkpoint(front: Front, kept: tuple[str, str, str]) -> None:
    task, first, _ = kept
    resumed = front.json("resume", task, "--checkpoint-id", first)
    assert resumed["session_id"] == f"{task}.2"
    done = front.until(task, "completed")
    assert done["session_id"] == f"{task}.2"
    assert done["result"]["ref"] == f"refs/parhelia/{task}/2"
    assert front.git("show", f"refs/parhelia/{task}/2:two.txt") == "2\n"


def test_of_two_resumes_at_once_one_is_busy(front: Front, kept: tuple[str, str, str], tmp_path: Path) -> None:
    task, first, _ = kept
    (tmp_path / "go").unlink()
    started = [front.start("resume", task, "--checkpoint-id", first, "--json") for _ in range(2)]
    answers = [(process.communicate(timeout=60)[0], process.returncode) for process in started]
    assert sorted(code for _, code in answers) == [0, 8], answers
    front.run("session", "kill", task)


def test_rollback_ends_what_lives_and_goes_on_from_there(front: Front, repo: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    task = two_steps(front, go)
    eventually(lambda: (front.home / "tasks" / task / "workspace" / "empty").is_dir(), what="the first step")
    front.until(task, "running")
    first = front.json("checkpoint", "create", task)["checkpoint_id"]
    rolled = front.json("checkpoint", "rollback", first)
    assert rolled["session_id"] == f"{task}.2"
    assert front.json("task", "show", f"{task}.1")["state"] == "killed"
    go.touch()
    assert front.until(task, "completed")["session_id"] == f"{task}.2"


def test_a_fork_starts_another_task_and_leaves_the_original(front: Front, kept: tuple[str, str, str]) -> None:
    task, first, _ = kept
    done = front.run("run", "--from-checkpoint", first, "--", "sh", "-c", "ls; echo fork > fork.txt")
    assert b"one.txt" in done.stdout
    assert b"two.txt" not in done.stdout
    fork = front.json("list")["tasks"][0]["task_id"]
    assert fork != task
    assert front.git("show", f"parhelia/{fork}:fork.txt") == "fork\n"
    assert len(front.json("task", "show", task)["sessions"]) == 1


def test_a_damaged_checkpoint_is_found_and_never_restored(
    front: Front, kept: tuple[str, str, str], tmp_path: Path
) -> None:
    task, first, last = kept
    packs = sorted(
        (front.home / "tasks" / task / "checkpoints" / "packs").glob("*"), key=lambda path: path.stat().st_mtime
    )
    data = bytearray(packs[-1].read_bytes())
    data[len(data) // 2] ^= 0xFF
    packs[-1].write_bytes(data)
    verdict = json.loads(front.run("checkpoint", "verify", last, "--json", code=6).stdout)
    assert verdict["ok"] is False
    error = front.error("resume", task, "--checkpoint-id", last, "--target", str(tmp_path / "t"), code=6)
    assert first in error["message"]
    assert not (tmp_path / "t").exists()


def test_delete_and_gc_give_back_what_nobody_needs(front: Front, kept: tuple[str, str, str]) -> None:
    task, first, last = kept
    assert front.error("checkpoint", "delete", first[:7], code=2)["code"] == "prefix-refused"
    assert front.json("checkpoint", "delete", first)["removed"] == [first]
    front.json("checkpoint", "gc")
    assert [one["checkpoint_id"] for one in front.json("checkpoint", "list")["checkpoints"]] == [last]
    assert front.json("checkpoint", "verify", last)["ok"] is True
    assert front.json("checkpoint", "list", "--older-than", "7d")["checkpoints"] == []
    assert front.error("checkpoint", "show", first, code=3)["code"] == "no-such-checkpoint"


def test_a_session_whose_runner_was_killed_is_lost_and_resumes_with_its_files(
    front: Front, repo: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = two_steps(front, go)
    folder = front.home / "tasks" / task
    eventually(lambda: (folder / "workspace" / "empty").is_dir(), what="the first step")
    front.until(task, "running")
    os.kill(json.loads((folder / "sessions/1/state.json").read_text())["runner"]["pid"], signal.SIGKILL)
    lost = front.until(task, "lost")
    assert lost["reason"] == "provider-lost"
    assert front.git("show", f"parhelia/{task}:one.txt") == "1\n"
    go.touch()
    front.json("resume", task)
    done = front.until(task, "completed")
    assert done["session_id"] == f"{task}.2"
