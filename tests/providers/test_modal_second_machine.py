"""Another machine of the same owner, whose database is empty, finds what the first one started on Modal."""

from __future__ import annotations

from collections.abc import Callable

from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback
from tests.providers.test_modal_main_job import cloud, of  # noqa: F401 -- cloud is a fixture

COUNT = 'n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n; echo "life $n"; [ $n -ge 2 ] || sleep 300'


def second(users: Callable[..., Front], first: Front) -> Front:
    """A machine that has nothing of the first one's but the name of the owner."""
    other = users(
        "other", **{name: value for name, value in first.env.items() if name not in ("HOME", "PARHELIA_HOME")}
    )
    other.home.mkdir(mode=0o700)
    (other.home / "owner").write_bytes((first.home / "owner").read_bytes())
    return other


def test_it_lists_reads_and_kills(cloud: Front, users: Callable[..., Front], loopback: Loopback) -> None:  # noqa: F811
    task = cloud.submit("sh", "-c", "echo seen from afar; sleep 300")
    eventually(lambda: "seen from afar" in cloud.text("logs", task), within=120, what="the first output")
    other = second(users, cloud)
    assert other.json("reconcile")["adopted"] == [f"{task}.1"]
    assert other.show(task)["reserved_usd"] == cloud.show(task)["reserved_usd"] > 0
    assert [one["task_id"] for one in other.json("list")["tasks"]] == [task]
    eventually(lambda: "seen from afar" in other.text("logs", task), within=120, what="the output there")
    other.run("session", "kill", task)
    assert of(loopback, task, live=True) == []
    assert cloud.until(task, "killed")["reserved_usd"] == 0
    assert other.show(task)["reserved_usd"] == 0


def test_it_recovers_what_was_lost_from_its_checkpoint(
    cloud: Front,  # noqa: F811
    users: Callable[..., Front],
    loopback: Loopback,
) -> None:
    task = cloud.submit("sh", "-c", COUNT)
    eventually(lambda: "life 1" in cloud.text("logs", task), within=120, what="the first life")
    kept = cloud.json("checkpoint", "create", task)["checkpoint_id"]
    other = second(users, cloud)
    other.run("reconcile")
    loopback.vanish(f"{task}.1")
    other.until(task, "lost")
    assert kept in other.text("checkpoint", "list", "--session", task)
    other.run("recover", task, "--action", "resume", "--yes")
    done = other.until(task, "completed", within=120)
    assert done["session_id"] == f"{task}.2"
    eventually(lambda: "life 2" in other.text("logs", task), within=120, what="the second life")
