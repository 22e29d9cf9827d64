"""doctor, report, reconcile, cleanup, and a database that is damaged, newer, locked or read-only."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.diagnosis.ward import Patient
from tests.front import Front, eventually

RATE = {"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "1.0"}


def checks(front: Front, code: int | None = 0) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in front.json("doctor", code=code)["checks"]}


def test_doctor_says_each_part_and_never_the_key(front: Front, repo: Path) -> None:
    env = {"ANTHROPIC_API_KEY": "sk-ant-never-shown-anywhere"}
    done = front.run("doctor", "--json", env=env)
    assert b"never-shown" not in done.stdout
    found = {one["name"]: one["state"] for one in json.loads(done.stdout)["checks"]}
    for name in (
        "python",
        "git",
        "tmux",
        "ssh",
        "credential",
        "config",
        "database",
        "disk",
        "controller",
        "hooks",
        "provider local",
        "modal",
    ):
        assert found[name] == "ok", name
    assert checks(front)["credential"]["state"] == "warning"


def test_doctor_works_with_a_broken_configuration_and_names_the_line(front: Front, repo: Path) -> None:
    (repo / "parhelia.toml").write_text('[modal]\nregion = "us-west"\nregoin = "x"\n')
    found = checks(front, code=2)
    assert found["config"]["state"] == "broken"
    assert "parhelia.toml:3" in found["config"]["what"]
    assert found["database"]["state"] == "ok"


def test_doctor_without_git_says_how_to_get_it(front: Front, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    found = checks_with(front, {"PATH": str(tmp_path / "bin")}, code=7)
    assert found["git"]["state"] == "broken"
    assert "install git" in found["git"]["fix"]
    assert found["tmux"]["state"] == "warning"


def checks_with(front: Front, env: dict[str, str], code: int) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in front.json("doctor", code=code, env=env)["checks"]}


def test_a_report_holds_everything_but_the_secrets(front: Front, repo: Path) -> None:
    planted = {
        "ANTHROPIC_API_KEY": "sk-ant-api03-plantedplantedplanted",
        "MY_SERVICE_TOKEN": "tok-planted-in-the-environment",
    }
    lines = [
        "ghp_planted0123456789abcdefghijklmnop",
        "password=planted-pass-phrase",
        "Authorization: Bearer planted.bearer.value",
        "https://user:planted-in-url@host/x",
        "AKIAPLANTED000000000",
        *planted.values(),
    ]
    task = front.submit("printf", "%s\n", *lines, env=planted)
    front.until(task, "completed")
    made = front.json("report", task, env=planted)
    path = Path(made["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        texts = {name: archive.extractfile(name).read().decode() for name in archive.getnames()}
    assert {
        "task.json",
        "diagnosis.json",
        "logs.txt",
        "config.json",
        "versions.json",
        "status.json",
        "doctor.json",
    } <= {Path(name).name for name in texts}
    for name, text in texts.items():
        for word in ("planted", "PLANTED"):
            assert word not in text, (name, word)
    log = next(text for name, text in texts.items() if name.endswith("logs.txt"))
    assert log.count("[redacted]") >= len(lines)
    assert task in next(text for name, text in texts.items() if name.endswith("task.json"))


def test_a_fault_of_our_own_is_kept_where_doctor_and_report_find_it(front: Front, repo: Path) -> None:
    task = front.submit("true")
    front.until(task, "completed")
    (front.home / "owner").unlink(missing_ok=True)
    (front.home / "owner").mkdir()  # a name that is read as a file when a session starts
    error = json.loads(front.run("run", "--json", "--", "true", code=125).stdout)["error"]
    fault = re.search(r"IsADirectoryError, fault ([0-9a-f]{8})", error["message"])[1]
    log = front.home / "faults.log"
    assert str(log) in error["hint"]
    assert log.stat().st_mode & 0o777 == 0o600
    assert f"fault {fault} in run: IsADirectoryError" in log.read_text()
    told = checks(front, None)["faults"]
    assert (told["state"], fault in told["what"]) == ("warning", True)
    with tarfile.open(front.json("report", task)["path"]) as archive:
        assert fault in archive.extractfile("parhelia-report/faults.log").read().decode()
    log.unlink()
    log.mkdir()  # the home cannot take it
    done = front.run("run", "--json", "--", "true", code=125, env={"TMPDIR": str(front.root)})
    kept = Path(re.search(r"send (\S+) with", json.loads(done.stdout)["error"]["hint"])[1])
    assert (kept.parent, kept.stat().st_mode & 0o777) == (front.root, 0o600)


def database(front: Front) -> Path:
    return front.home / "parhelia.db"


def test_a_database_that_is_locked_is_said_to_be_busy(front: Front, repo: Path) -> None:
    front.run("list")
    with sqlite3.connect(database(front)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert front.error("budget", "set", "30", code=8)["code"] == "database-busy"
        assert front.json("list")["tasks"] == [], "reading needs no lock"


def test_a_database_of_a_newer_version_is_not_touched(front: Front, repo: Path) -> None:
    front.run("list")
    with sqlite3.connect(database(front)) as db:
        db.execute("PRAGMA user_version = 999")
    error = front.error("list", code=7)
    assert (error["code"], "999" in error["message"]) == ("database-newer", True)
    assert checks(front, code=7)["database"]["state"] == "broken"
    assert front.error("reconcile", "--rebuild", code=7)["code"] == "database-newer"


def test_a_read_only_home_can_be_read_and_says_what_to_change(front: Front, repo: Path) -> None:
    task = front.submit("true")
    front.until(task, "completed")
    eventually(lambda: not Path(f"/proc/{(front.home / 'controller.lock').read_text().strip()}").exists(), what="quiet")
    script = f'mount --bind {front.home} {front.home} && mount -o remount,ro,bind {front.home} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]

    def inside(*argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, *front.command(*argv)],
            cwd=front.cwd,
            env=front.env,
            capture_output=True,
            timeout=60,
            check=False,
        )

    assert task in inside("list").stdout.decode()
    refused = inside("budget", "set", "30", "--json")
    assert refused.returncode == 7
    error = json.loads(refused.stdout)["error"]
    assert (error["code"], "chmod" in error["hint"]) == ("database-unwritable", True)


@pytest.mark.parametrize("harm", ["garbage", "empty", "gone"])
def test_a_damaged_database_is_never_replaced_unasked_and_is_rebuilt_when_asked(
    front: Front, repo: Path, harm: str
) -> None:
    front.env |= RATE
    front.run("budget", "set", "7")
    done = front.submit("sh", "-c", "echo work > w.txt; exit 4")
    front.until(done, "failed")
    before, money = front.show(done), front.json("budget", "show")
    patient = Patient(front, "sleep", "600").working()
    _stop_controller(front)
    _harm(database(front), harm)
    error = front.error("list", code=6)
    assert error["hint"] == "parhelia reconcile --rebuild"
    assert checks(front, code=6)["database"]["state"] == "broken"
    rebuilt = front.json("reconcile", "--rebuild")
    assert set(rebuilt["adopted"]) == {f"{done}.1", f"{patient.task}.1"}
    assert harm == "gone" or Path(rebuilt["moved_aside"]).exists()
    after = front.show(done)
    for name in ("state", "reason", "exit_code", "command", "created_at"):
        assert after[name] == before[name]
    assert after["result"]["commit"] == before["result"]["commit"]
    assert after["spent_usd"] > 0
    now = front.json("budget", "show")
    assert (now["ceiling_usd"], now["spent_usd"] >= money["spent_usd"]) == (7, True)
    assert front.until(patient.task, "running")["observed"] is True
    front.run("session", "kill", patient.task)
    assert front.json("budget", "show")["reserved_usd"] == 0
    assert front.error("reconcile", "--rebuild", code=8)["code"] == "database-whole"


def _stop_controller(front: Front) -> None:
    pid = int((front.home / "controller.lock").read_text())
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(), what="its end"
    )


def _harm(path: Path, harm: str) -> None:
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    if harm == "garbage":
        path.write_bytes(os.urandom(8192))
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


def forget(front: Front, task: str) -> None:
    """What a lost commit leaves: a sandbox that the database does not know."""
    with sqlite3.connect(database(front)) as db:
        for sql in (
            "DELETE FROM sessions WHERE task = ?",
            "DELETE FROM tasks WHERE id = ?",
            "DELETE FROM accounts WHERE task = ?",
        ):
            db.execute(sql, (task,))


def test_a_sandbox_that_the_database_never_heard_of_is_adopted(front: Front, repo: Path) -> None:
    patient = Patient(front, "sh", "-c", "until test -e go; do sleep 0.05; done; exit 6").working()
    _stop_controller(front)
    forget(front, patient.task)
    assert front.json("list")["tasks"] == []
    assert front.json("cleanup", "--terminate")["adopted"] == [f"{patient.task}.1"]
    front.until(patient.task, "running")
    (patient.folder().parents[1] / "workspace" / "go").touch()
    assert front.until(patient.task, "failed")["exit_code"] == 6


def test_only_what_is_ours_unneeded_and_old_is_ended(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    _stop_controller(front)
    forget(front, patient.task)
    for name in ("spec.json", "sessions/1/row.json"):
        (front.home / "tasks" / patient.task / name).unlink()
    young = front.json("cleanup", "--terminate")
    assert [one["did"].partition(":")[0] for one in young["sandboxes"]] == ["nothing yet"]
    record = patient.folder() / "sandbox.json"
    told = json.loads(record.read_text())
    record.write_text(
        json.dumps({**told, "created_at": "2026-01-01T00:00:00.000Z", "tags": {**told["tags"], "owner": "x"}})
    )
    assert front.json("cleanup", "--terminate")["sandboxes"] == [], "another owner's"
    record.write_text(json.dumps({**told, "created_at": "2026-01-01T00:00:00.000Z"}))
    assert front.json("cleanup")["sandboxes"][0]["did"] == "nothing"
    assert Path(f"/proc/{patient.state()['agent']['pid']}").exists()
    ended = front.json("cleanup", "--terminate")
    assert [(one["session_id"], one["did"]) for one in ended["sandboxes"]] == [(f"{patient.task}.1", "ended")]
    assert not Path(f"/proc/{patient.state()['agent']['pid']}").exists()


def test_folders_of_tasks_that_never_began_are_removed(front: Front, repo: Path) -> None:
    front.run("list")
    left = front.home / "tasks" / "task-00000000" / "sessions" / "1"
    left.mkdir(parents=True)
    (left / "workspace.pack").write_bytes(bytes(5000))
    assert front.json("cleanup")["folders"] == [], "somebody may be submitting it now"
    os.utime(left.parents[1], (1, 1))
    assert front.json("cleanup")["folders"] == ["task-00000000"]
    assert left.exists()
    front.json("cleanup", "--terminate")
    assert not left.exists()
