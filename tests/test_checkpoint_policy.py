"""What the settings promise of checkpoints: how often, how many, how long, encrypted; and what a bad disk may not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.front import Front, eventually

FAST = {"PARHELIA_CHECKPOINT_INTERVAL_MINUTES": "0.005"}  # 0.3 s
ENCRYPTED = {"PARHELIA_CHECKPOINT_ENCRYPT": "true"}
ZSTD = bytes.fromhex("28b52ffd")
READS_ALL = ("dac_override", "dac_read_search")  # what lets root read a file of mode 000


def kept(front: Front, task: str) -> list[dict]:
    """The task's checkpoints, newest first."""
    return front.json("checkpoint", "list", "--session", task)["checkpoints"]


def events(front: Front, task: str, kind: str) -> list[dict]:
    lines = (front.home / "tasks" / task / "sessions/1/events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def state(front: Front, task: str) -> dict:
    return json.loads((front.home / "tasks" / task / "sessions/1/state.json").read_text())


def working(front: Front, script: str, **env: str) -> str:
    """A session whose command has said `ready`."""
    task = front.submit("sh", "-c", script, env=env)
    log = front.home / "tasks" / task / "sessions/1/stdout.log"
    eventually(lambda: log.exists() and b"ready" in log.read_bytes(), what="the command")
    front.until(task, "running")
    return task


# -- how often, how many, how long


def test_a_checkpoint_comes_at_each_interval_that_changed_something_and_the_oldest_go(front: Front, repo: Path) -> None:
    script = "echo 0 > n; echo ready; while [ ! -e stop ]; do sleep 0.05; done; i=0; while :; do i=$((i+1)); echo $i > n; sleep 0.1; done"
    task = working(front, script, **FAST, PARHELIA_CHECKPOINT_MAX_PER_SESSION="2")
    periodic = lambda: [one for one in events(front, task, "checkpoint") if one["trigger"] == "periodic"]  # noqa: E731
    eventually(periodic, what="the first one")
    front.json("checkpoint", "create", task, "-m", "by hand")
    count = len(periodic())
    beat = state(front, task)["heartbeat_at"]
    eventually(lambda: state(front, task)["heartbeat_at"] != beat, what="more intervals")
    assert len(periodic()) == count
    (front.home / "tasks" / task / "workspace/stop").touch()
    eventually(lambda: len(periodic()) >= count + 4, what="four more")
    front.run("session", "kill", task)
    left = [one["trigger"] for one in kept(front, task)]
    assert left == ["shutdown", "periodic", "periodic", "manual"]
    says = {one["trigger"]: (one["kept_longer"], one["expires_at"]) for one in kept(front, task)}
    assert says["manual"][0]
    assert not says["periodic"][0]
    assert says["manual"][1] > says["periodic"][1]
    assert "kept longer" in front.text("checkpoint", "list")
    assert "kept longer" in front.text("checkpoint", "show", kept(front, task)[-1]["checkpoint_id"])


def test_what_has_expired_goes_with_the_next_one(front: Front, repo: Path) -> None:
    days = {"PARHELIA_CHECKPOINT_RETENTION_DAYS": "0.00001"}  # 0.9 s, by hand 3.5 s
    task = working(front, "echo ready; while :; do date +%N > n; sleep 0.05; done", **FAST, **days)
    first = eventually(lambda: events(front, task, "checkpoint"), what="the first one")[0]["checkpoint_id"]
    eventually(
        lambda: not any(one["checkpoint_id"] == first for one in kept(front, task)), what="the first one to expire"
    )
    assert kept(front, task)
    front.run("session", "kill", task)


def test_the_end_of_the_machine_takes_a_last_checkpoint(front: Front, repo: Path) -> None:
    task = working(front, "echo work > work.txt; echo ready; sleep 300")
    os.kill(state(front, task)["runner"]["pid"], signal.SIGTERM)
    assert front.until(task, "killed")
    assert [one["trigger"] for one in kept(front, task)] == ["shutdown"]


# -- encrypted


@pytest.fixture
def sealed(front: Front, repo: Path) -> tuple[str, str, bytes]:
    """An ended task whose one checkpoint is encrypted, and the key."""
    task = front.submit("sh", "-c", "env > env.txt; echo the-secret-plan > plan.txt", env=ENCRYPTED)
    front.until(task, "completed")
    path = front.home / "keys/checkpoint"
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, 32)
    (one,) = kept(front, task)
    return task, one["checkpoint_id"], path.read_bytes()


def is_sealed(front: Front, task: str) -> bool:
    """Whether every pack names a key, and what follows its header is not a frame that anybody can open."""
    packs = [path.read_bytes() for path in (front.home / "tasks" / task / "checkpoints/packs").glob("*.pack")]
    assert packs
    return all(pack[16:24] != bytes(8) and pack[24:28] != ZSTD for pack in packs)


def test_an_encrypted_checkpoint_can_be_opened_with_its_key_only_which_is_in_no_other_file(
    front: Front, sealed
) -> None:
    task, checkpoint, key = sealed
    assert is_sealed(front, task)
    assert front.json("checkpoint", "verify", checkpoint)["ok"]
    others = [path for path in front.root.rglob("*") if path.is_file() and path != front.home / "keys/checkpoint"]
    found = [path for path in others if key in (data := path.read_bytes()) or key.hex().encode() in data]
    assert found == []


def test_resume_fork_and_diff_open_what_was_encrypted(front: Front, sealed, tmp_path: Path) -> None:
    task, checkpoint, _ = sealed
    front.json("resume", task, "--target", str(tmp_path / "home"))
    assert (tmp_path / "home/plan.txt").read_text() == "the-secret-plan\n"
    front.json("resume", task, env=ENCRYPTED)
    assert front.until(task, "completed", "failed")["session_id"] == f"{task}.2"
    assert front.show(task)["state"] == "completed"
    last = kept(front, task)[0]["checkpoint_id"]
    assert "workspace/env.txt" in front.json("checkpoint", "diff", checkpoint, last)["changed"]
    done = front.run("run", "--from-checkpoint", checkpoint, "--", "cat", "plan.txt", env=ENCRYPTED)
    assert done.stdout == b"the-secret-plan\n"


def test_a_runner_that_was_killed_leaves_an_encrypted_checkpoint_too(front: Front, repo: Path) -> None:
    task = working(front, "echo the-secret-plan > plan.txt; echo ready; sleep 300", **ENCRYPTED)
    os.kill(state(front, task)["runner"]["pid"], signal.SIGKILL)
    front.until(task, "lost")
    assert is_sealed(front, task)
    assert front.json("checkpoint", "verify", kept(front, task)[0]["checkpoint_id"])["ok"]


@pytest.mark.parametrize(("key", "code", "exit_code"), [(None, "key-needed", 4), (b"x" * 32, "wrong-key", 4)])
def test_without_its_key_nothing_is_restored_and_the_error_names_it(
    front: Front, sealed, tmp_path: Path, key: bytes | None, code: str, exit_code: int
) -> None:
    task, checkpoint, right = sealed
    path = front.home / "keys/checkpoint"
    path.unlink()
    if key:
        path.write_bytes(key)
    for argv in (("checkpoint", "verify", checkpoint), ("resume", task, "--target", str(tmp_path / "t"))):
        error = front.error(*argv, code=exit_code)
        assert error["code"] == code
        assert "keys/checkpoint" in error["hint"]
    assert not (tmp_path / "t").exists()
    assert kept(front, task)[0]["checkpoint_id"] == checkpoint
    assert "encrypted" in front.json("checkpoint", "show", checkpoint)["locked"]
    path.write_bytes(right)
    assert front.json("checkpoint", "verify", checkpoint)["ok"]


# -- bad disks


def test_what_cannot_be_read_makes_it_partial_and_says_so(front: Front, repo: Path) -> None:
    script = "echo x > locked.txt; chmod 000 locked.txt; mkfifo pipe; echo ready; sleep 300"
    dropped = ",".join(f"-{name}" for name in READS_ALL)
    less = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"] if os.geteuid() == 0 else []
    argv = [*less, *front.command("run", "-d", "--json", "--", "sh", "-c", script)]
    task = json.loads(subprocess.run(argv, cwd=front.cwd, env=front.env, capture_output=True, check=True).stdout)[
        "task_id"
    ]
    eventually(lambda: (front.home / "tasks" / task / "workspace/pipe").exists(), what="the command")
    front.until(task, "running")
    made = json.loads(front.run("checkpoint", "create", task, "--json", code=9).stdout)
    assert made["partial"] is True
    assert [one["path"] for one in made["skipped"]] == ["workspace/locked.txt"]
    assert "Permission denied" in made["skipped"][0]["why"]
    assert "skipped: workspace/locked.txt" in front.text("checkpoint", "create", task, code=9)
    front.run("session", "kill", task)


@pytest.fixture
def small_disk(users) -> Iterator[Front]:
    """A user whose PARHELIA_HOME is a disk of 24 MB."""
    front = users("small")
    front.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(front.home)], check=True)
    yield front
    front.close()
    subprocess.run(["umount", "--lazy", str(front.home)], check=True)


def test_a_full_disk_refuses_a_checkpoint_and_harms_none_before(small_disk: Front) -> None:
    front = small_disk
    front.repository()
    task = working(front, "echo kept > kept.txt; echo ready; sleep 300")
    first = front.json("checkpoint", "create", task)["checkpoint_id"]
    workspace = front.home / "tasks" / task / "workspace"
    (workspace / "noise").write_bytes(os.urandom(12 << 20))
    error = front.error("checkpoint", "create", task, code=7)
    assert error["code"] == "disk-full"
    assert "Every earlier checkpoint is as it was" in error["message"]
    assert [one["checkpoint_id"] for one in kept(front, task)] == [first]
    assert front.json("checkpoint", "verify", first)["ok"]
    (workspace / "noise").unlink()
    assert front.json("checkpoint", "create", task)["files"] > 1
    front.run("session", "kill", task)
