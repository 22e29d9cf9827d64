"""Where the agent has a user of its own, it reaches its work and nothing of the runner's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parhelia_mcp import files
from tests.inside.session import Session, until

SCRIPT = """
id -un; touch made $HOME/made; pwd
cat ../spec.json && echo READ; ls .. && echo READ; cat /proc/$PPID/environ && echo READ
ls ../sessions/1 && echo READ; cat $RUNNER/control && echo READ
echo done
"""


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A directory that another user can pass through."""
    folder = Path(f"/tmp/parhelia-tests-{os.getpid()}")
    folder.mkdir(mode=0o711)
    yield folder
    shutil.rmtree(folder)


def test_the_agent_is_its_own_user_and_reads_nothing_of_ours(open_home: Path) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    user = "nobody" if me == "root" else me
    session = Session(open_home)
    files.private_dir(session.folder)
    session.deliver(("sh", "-c", SCRIPT))
    runner = subprocess.Popen(
        [sys.executable, "-P", "-m", "parhelia_mcp.inside", str(session.root), "1", "--user", user],
        stdin=subprocess.DEVNULL,
        cwd="/",
    )
    session.sandbox = session.provider.open(type("Named", (), {"name": session.name})())
    try:
        until(lambda: (session.folder / "result.json").exists())
        assert runner.wait(20) == 0
        out = session.stdout().decode().splitlines()
        assert out[:2] == [user, str(session.workspace)]
        assert out[-1] == "done"
        if user == "nobody":
            assert "READ" not in out
        assert files.read_json(session.folder / "result.json")["files_changed"] == 1
        assert (session.workspace / "made").owner() == (session.root / "home" / "made").owner() == user
        assert not [event["text"] for event in session.events() if "tmux" in event["text"]]
    finally:
        session.end()
