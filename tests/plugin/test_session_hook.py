"""The hook inside a session: which commands are risky, and what it says to the runner's socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parhelia_mcp.inside import risky, session_hook
from tests.plugin.client import run_claude

RISKY = """git reset --hard
git reset --hard HEAD~3 && make
cd x; git -C sub clean -fdx
git clean --force
git push -f
git push --force-with-lease origin main
git push origin +main
git push origin --delete old
git -c core.pager=cat checkout -- .
git checkout .
git restore src/a.py
git branch -D feature
git stash drop
git stash clear
git rebase main
git filter-branch --all
git reflog expire --all
git worktree remove ../x
rm -rf build
rm -r build
rm -f a.txt
rm *.py
sudo rm -rf /
/bin/rm -fr x
FOO=1 rm -rf x
find . -name '*.pyc' -delete
find . -type f -exec rm {} ;
ls | xargs rm -rf
bash -c "rm -rf x"
echo $(rm -rf x)
echo `rm -rf x`
true && (rm -rf x)
make; rm -rf x
rsync -a --delete a/ b/
truncate -s 0 data.db
dd if=/dev/zero of=disk.img
shred secrets
chmod -R 000 .
sqlite3 app.db 'drop table users'
psql -c "DELETE FROM users"
python -c "import shutil; shutil.rmtree('x')"
docker volume rm data
kubectl delete pod x
terraform destroy
echo "unclosed"""
HARMLESS = """git status
git commit -m "reset --hard"
git push
git checkout main
git checkout -b feature
git stash
git branch
git log --oneline -- a.py
git diff
ls -la
rm --help
cat rm.txt
grep -rf patterns .
echo delete
find . -name x
make clean
chmod +x run
rsync -a a/ b/
mv a b
npm run format
pytest -k clean"""


@pytest.mark.parametrize("command", RISKY.splitlines())
def test_a_command_that_can_destroy_work_is_risky(command: str) -> None:
    assert risky.risky(command)


@pytest.mark.parametrize("command", RISKY.splitlines())
def test_no_risky_command_is_passed_over_by_its_bytes(command: str) -> None:
    assert session_hook.concerns(json.dumps(bash(command)).encode()) or command == 'echo "unclosed'


@pytest.mark.parametrize("command", HARMLESS.splitlines())
def test_an_everyday_command_is_not_risky(command: str) -> None:
    assert not risky.risky(command)


def hook(event: dict[str, Any], control: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", session_hook.__file__],
        input=json.dumps(event, separators=(",", ":")),
        env={"PARHELIA_CONTROL": str(control)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )


class Runner:
    """A socket that answers one request as the runner would."""

    def __init__(self, path: Path, answer: dict[str, Any], seen: Callable[[], object] = bool) -> None:
        self.asked: dict[str, Any] = {}
        self._seen = seen
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Runner:
        self._thread.start()
        return self

    def _serve(self) -> None:
        peer, _ = self._socket.accept()
        with peer, peer.makefile("rwb") as lines:
            self.asked = json.loads(lines.readline())
            self._seen()
            lines.write(json.dumps({"id": self.asked["id"], **self._answer}).encode() + b"\n")

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()


def bash(command: str) -> dict[str, Any]:
    return {"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": command}}


def test_a_risky_command_waits_for_a_checkpoint_and_then_runs(tmp_path: Path) -> None:
    with Runner(tmp_path / "control", {"ok": True, "result": {"checkpoint_id": "cp-00000000"}}) as runner:
        done = hook(bash("rm -rf build"), tmp_path / "control")
    assert runner.asked["op"] == "checkpoint"
    assert runner.asked["args"] == {"trigger": "risky", "tool": "Bash", "command": "rm -rf build"}
    assert done.stdout == ""


def test_a_harmless_command_asks_nobody(tmp_path: Path) -> None:
    assert hook(bash("git status"), tmp_path / "nobody").stdout == ""


def test_the_agent_is_told_when_no_checkpoint_could_be_taken(tmp_path: Path) -> None:
    said = json.loads(hook(bash("git reset --hard"), tmp_path / "nobody").stdout)["hookSpecificOutput"]
    assert said["hookEventName"] == "PreToolUse"
    assert "could not take a checkpoint" in said["additionalContext"]
    refusal = {"ok": False, "error": {"code": "disk-full", "message": "no space"}}
    with Runner(tmp_path / "control", refusal):
        assert "no space" in hook(bash("git reset --hard"), tmp_path / "control").stdout


def test_the_client_holds_a_risky_command_until_the_checkpoint_is_taken(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "build").mkdir(parents=True)
    command = f"{sys.executable} -I -S {session_hook.__file__}"
    settings = {"hooks": {"PreToolUse": [{"hooks": [{"type": "command", "command": command, "timeout": 3600}]}]}}
    there: list[bool] = []
    with Runner(tmp_path / "control", {"ok": True, "result": {}}, lambda: there.append((project / "build").exists())):
        run = run_claude(
            tmp_path / "home",
            project,
            [("Bash", {"command": "rm -rf build"})],
            "--settings",
            json.dumps(settings),
            env={"PARHELIA_CONTROL": str(tmp_path / "control")},
        )
    assert there == [True]
    assert not (project / "build").exists()
    assert "could not take a checkpoint" not in run.told
