"""What lies outside the workspace comes back with a checkpoint while Modal has the snapshot, and is missed in words after."""

from __future__ import annotations

from parhelia_mcp.model import moment
from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback
from tests.providers.test_modal_main_job import cloud, of  # noqa: F401 -- cloud is a fixture

INSTALLS = (
    "if test -e ~/tool; then cat ~/tool > seen.txt; exit; fi; test -e work.txt && exit;"
    " echo work > work.txt; echo installed > ~/tool; sleep 600"
)


def kept(user: Front) -> tuple[str, dict]:
    """A task that installed something outside its workspace, kept by a checkpoint that has its snapshot."""
    task = user.submit("sh", "-c", INSTALLS)
    user.until(task, "running")
    checkpoint = eventually(lambda: whole(user, task), what="a checkpoint with the work")
    snapshot = eventually(lambda: user.json("checkpoint", "show", checkpoint)["snapshot"], what="its snapshot")
    return task, {"checkpoint": checkpoint, **snapshot}


def whole(user: Front, task: str) -> str | None:
    """A checkpoint that has the file, if it was written by now."""
    made = user.json("checkpoint", "create", task)
    return made["checkpoint_id"] if made["files"] > 1 else None


def test_what_was_installed_outside_the_workspace_is_there_again(cloud: Front, loopback: Loopback) -> None:  # noqa: F811
    task, snapshot = kept(cloud)
    shown = cloud.json("checkpoint", "show", snapshot["checkpoint"])
    assert shown["manifest"]["snapshot"] == {name: snapshot[name] for name in ("provider", "image", "expires_at")}
    assert f"snapshot:    {snapshot['image']} on modal" in cloud.text("checkpoint", "show", snapshot["checkpoint"])
    ttl = loopback.record()["snapshots"][snapshot["image"]]
    assert abs(ttl - moment(shown["expires_at"]).timestamp()) < 300
    cloud.run("session", "kill", task)
    cloud.run("resume", task, "--checkpoint-id", snapshot["checkpoint"])
    assert cloud.until(task, "completed", "failed")["state"] == "completed"
    assert cloud.git("show", f"parhelia/{task}:seen.txt") == "installed\n"
    assert cloud.git("show", f"parhelia/{task}:work.txt") == "work\n"
    assert snapshot["image"] in cloud.text("logs", task)
    assert [one["image"] for one in of(loopback, task)][-1] == snapshot["image"]
    assert loopback.record()["unimplemented"] == []


def test_without_its_snapshot_a_checkpoint_still_restores_and_says_what_is_missing(
    cloud: Front,  # noqa: F811
    loopback: Loopback,
) -> None:
    task, snapshot = kept(cloud)
    cloud.run("session", "kill", task)
    loopback.expire()
    cloud.run("resume", task, "--checkpoint-id", snapshot["checkpoint"])
    assert cloud.until(task, "completed", "failed")["state"] == "completed"
    assert cloud.git("show", f"parhelia/{task}:work.txt") == "work\n"
    assert "[snapshot-gone]: what was installed outside the workspace is not back" in cloud.text("logs", task)
    assert cloud.json("checkpoint", "show", snapshot["checkpoint"])["snapshot"] is None


def test_a_checkpoint_is_deleted_with_its_snapshot_once_nothing_writes_there(cloud: Front, loopback: Loopback) -> None:  # noqa: F811
    task, snapshot = kept(cloud)
    first = snapshot["checkpoint"]
    assert cloud.error("checkpoint", "delete", first, code=8)["code"] == "session-lives"
    cloud.run("session", "kill", task)
    cloud.until(task, "killed")
    last = cloud.json("checkpoint", "list", "--session", task)["checkpoints"][0]["checkpoint_id"]
    assert last != first
    frozen = [{"rpc": "ImageDelete", "action": "status", "status": "UNAVAILABLE"}]
    loopback.faults(*frozen)
    cloud.error("checkpoint", "delete", first, code=5)
    loopback.faults()
    there = [one["checkpoint_id"] for one in cloud.json("checkpoint", "list", "--session", task)["checkpoints"]]
    assert first in there
    cloud.json("checkpoint", "delete", first)
    there = [one["checkpoint_id"] for one in cloud.json("checkpoint", "list", "--session", task)["checkpoints"]]
    assert first not in there
    assert snapshot["image"] not in loopback.record()["snapshots"]
    assert cloud.json("checkpoint", "verify", last)["ok"]
    assert loopback.record()["unimplemented"] == []


def test_no_snapshot_is_taken_of_what_is_to_be_encrypted(cloud: Front, loopback: Loopback) -> None:  # noqa: F811
    before = loopback.record()["snapshots"]
    cloud.env["PARHELIA_CHECKPOINT_ENCRYPT"] = "true"
    task = cloud.submit("sh", "-c", "touch here; sleep 600")
    cloud.until(task, "running")
    made = cloud.json("checkpoint", "create", task)["checkpoint_id"]
    eventually(lambda: made in cloud.text("logs", task), what="the controller to see it")
    assert cloud.json("checkpoint", "show", made)["snapshot"] is None
    cloud.run("session", "kill", task)
    assert loopback.record()["snapshots"] == before
