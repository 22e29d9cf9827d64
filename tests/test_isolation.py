"""`[local] isolate = "bwrap"`: what an agent on this machine can still see and write."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.claude_client import claude_path
from tests.fake_api import fake_api, say, use
from tests.front import Front

LOOK = """
import json, os, pathlib
def reads(path):
    try: return pathlib.Path(path).read_text()
    except OSError as problem: return type(problem).__name__
def writes(path):
    try: pathlib.Path(path).write_text("x"); return True
    except OSError: return False
print(json.dumps({"key": reads(os.environ["THEIRS"] + "/.ssh/id"), "database": os.path.exists(os.environ["STATE"] + "/parhelia.db"),
  "outside": writes(os.environ["THEIRS"] + "/x"), "inside": writes("made.txt"), "home": writes(os.path.expanduser("~/x")),
  "processes": sum(name.isdigit() for name in os.listdir("/proc"))}))
"""


def test_a_confined_command_sees_no_key_no_other_process_and_writes_only_its_own(users: Callable[..., Front]) -> None:
    front = users(PARHELIA_LOCAL_ISOLATE="bwrap")
    repo = front.repository()
    (front.user_home / ".ssh").mkdir()
    (front.user_home / ".ssh" / "id").write_text("private")
    script = f"import os; os.environ.update(THEIRS={str(front.user_home)!r}, STATE={str(front.home)!r})\n{LOOK}"
    seen = json.loads(front.run("run", "--", "python3", "-c", script).stdout)
    assert (seen["key"], seen["database"], seen["inside"], seen["home"]) == ("FileNotFoundError", False, True, True)
    assert not (front.user_home / "x").exists()
    assert seen["processes"] <= 3
    task = front.json("list")["tasks"][0]["task_id"]
    assert front.git("show", f"parhelia/{task}:made.txt") == "x"
    assert not (repo / "made.txt").exists()
    open_ = json.loads(front.run("run", "--", "python3", "-c", script, env={"PARHELIA_LOCAL_ISOLATE": "none"}).stdout)
    assert open_["key"] == "private", "without isolation it is the same user"
    assert (front.user_home / "x").exists()


def test_confined_codes_are_the_commands_own(users: Callable[..., Front]) -> None:
    front = users(PARHELIA_LOCAL_ISOLATE="bwrap")
    front.repository()
    front.run("run", "--", "sh", "-c", "exit 5", code=5)
    front.run("run", "--", "sh", "-c", "kill -9 $$", code=137)
    front.run("run", "--", "no-such-program-here", code=127)


def test_the_real_client_works_confined(users: Callable[..., Front]) -> None:
    front = users(
        PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-a-test", PARHELIA_LOCAL_ISOLATE="bwrap"
    )
    front.repository()
    with fake_api([use("Bash", command="git commit -q --allow-empty -m confined"), say("done")]) as api:
        done = front.run("submit", "--wait", "--json", "commit", env={"ANTHROPIC_BASE_URL": api.url})
    task = json.loads(done.stdout)["task_id"]
    assert front.git("log", "-1", "--format=%s", f"parhelia/{task}").strip() == "confined"


def test_without_bubblewrap_nothing_starts(users: Callable[..., Front], tmp_path) -> None:
    front = users(PARHELIA_LOCAL_ISOLATE="bwrap")
    front.repository()
    (tmp_path / "bin").mkdir()
    for name in ("git", "sh"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    error = json.loads(front.run("run", "--json", "--", "true", code=125, env={"PATH": str(tmp_path / "bin")}).stdout)[
        "error"
    ]
    assert error["code"] == "bwrap-missing"
    assert "bubblewrap" in error["hint"]
    assert front.json("list")["tasks"] == []
