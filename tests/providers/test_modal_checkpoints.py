"""What was kept on Modal outlives the sandbox: every verb about checkpoints, from the front door, on a dead session."""

from __future__ import annotations

import json

from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback
from tests.providers.test_modal_main_job import cloud, of  # noqa: F401 -- cloud is a fixture

WORK = 'n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n; echo "life $n"; [ $n -ge 2 ] || sleep 300'


def test_a_dead_session_is_listed_compared_verified_restored_resumed_and_forked(
    cloud: Front,  # noqa: F811
    loopback: Loopback,
) -> None:
    task = cloud.submit("sh", "-c", WORK)
    eventually(lambda: "life 1" in cloud.text("logs", task), within=120, what="the first life")
    first = cloud.json("checkpoint", "create", task, "-m", "by hand")["checkpoint_id"]
    cloud.run("session", "kill", task)
    assert of(loopback, task, live=True) == []
    kept = cloud.json("checkpoint", "list", "--session", task)["checkpoints"]
    assert first in {one["checkpoint_id"] for one in kept}
    assert cloud.json("checkpoint", "verify", first)["ok"]
    last = next(one["checkpoint_id"] for one in kept if one["trigger"] == "shutdown")
    changed = cloud.json("checkpoint", "diff", first, last)["changed"]
    assert [path for path in changed if not path.startswith("extra/")] == []  # the terminal may show more by then
    cloud.run("resume", task, "--checkpoint-id", first, "--target", str(cloud.root / "home"))
    assert (cloud.root / "home" / "n").read_text() == "1\n"
    cloud.run("resume", task, "--checkpoint-id", first)
    assert cloud.until(task, "completed", within=120)["session_id"] == f"{task}.2"
    assert cloud.git("show", f"refs/parhelia/{task}/2:n") == "2\n"
    said = cloud.run("run", "-d", "--json", "--from-checkpoint", first, "--", "sh", "-c", "cat n").stdout
    fork = json.loads(said)["task_id"]
    cloud.until(fork, "completed", within=120)
    assert "1" in cloud.text("logs", fork, "--stream", "output").split()
    assert loopback.record()["unimplemented"] == []
