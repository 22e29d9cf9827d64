"""A limit ends the session with its reason, and what was there is kept."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from parhelia_mcp import model, processes
from tests.inside.session import Session, until


def test_the_deadline_ends_a_command_that_ignores_sigterm(session: Session) -> None:
    deadline = model.timestamp(model.now() + timedelta(seconds=1))
    session.start("sh", "-c", "trap 'echo asked' TERM; echo begun; while :; do sleep 0.1; done", deadline=deadline)
    session.wait_output(b"asked")
    assert session.op("stop", grace_s=0.1)["ok"]  # shortens the agent's time; the reason stays
    result = session.result()
    assert (result["state"], result["reason"]) == ("failed", "timeout")
    assert deadline in result["detail"]
    assert [event["reason"] for event in session.events() if event["kind"] == "limit"] == ["timeout"]


def test_memory_over_the_limit_ends_the_session_and_says_how_much(session: Session) -> None:
    hog = "import time\nblocks=[]\nwhile True:\n blocks.append(bytearray(b'x')*(4<<20))\n time.sleep(0.01)"
    result = session.start(sys.executable, "-c", hog, memory_gb=0.2).result()
    assert (result["state"], result["reason"]) == ("failed", "out-of-memory")
    assert "oom" in session.events()[-1]["text"]
    assert 0.2 * 2**30 < result["counters"]["memory_peak_bytes"] < 0.5 * 2**30


def test_shared_memory_counts_once(session: Session) -> None:
    """Eight forks of a parent with 60 MB are 480 MB by RSS and 60 MB in truth: nobody is ended for that."""
    script = (
        "import os, time\nblock=bytearray(os.urandom(60<<20))\n"
        "for _ in range(8):\n if os.fork()==0:\n  time.sleep(1.5); os._exit(0)\n"
        "for _ in range(8): os.wait()\nprint('fine')"
    )
    result = session.start(sys.executable, "-c", script, memory_gb=0.2).result()
    assert (result["state"], session.stdout()) == ("completed", b"fine\n")
    assert result["counters"]["memory_peak_bytes"] > 0.3 * 2**30


def test_the_sandbox_ends_by_itself_after_its_lifetime(session: Session) -> None:
    session.start("sh", "-c", "trap '' TERM; echo ready; sleep 300", timeout_s=1.0)
    session.wait_output(b"ready")
    until(lambda: session.sandbox.poll())
    assert session.sandbox.poll().cause == "timeout"
    assert not processes.members(session.name)


@pytest.fixture
def small_disk(tmp_path: Path):
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_told_apart_and_the_result_is_still_written(small_disk: Path) -> None:
    session = Session(small_disk)
    try:
        result = session.start("sh", "-c", "cat /dev/zero > file; echo failed >&2; exit 1").result()
        assert (result["state"], result["reason"]) == ("failed", "disk-full")
    finally:
        session.end()


def test_output_that_fills_the_disk_ends_the_session(small_disk: Path) -> None:
    session = Session(small_disk)
    try:
        result = session.start("sh", "-c", "trap '' PIPE; cat /dev/zero").result()
        assert (result["state"], result["reason"]) == ("failed", "disk-full")
        numbers = [event["seq"] for event in session.events()]
        assert numbers == list(range(1, len(numbers) + 1))
    finally:
        session.end()
