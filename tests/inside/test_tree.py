"""Everything a session started is gone when it is over, whoever is killed first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from parhelia_mcp import processes
from parhelia_mcp.providers.base import Exit
from tests.inside.session import Session, until

# Each line starts a process that tries to stay, and names it by an argument that the test can find.
TREE = """
import os, signal, subprocess, sys, time
name = sys.argv[1]
sleep = [sys.executable, "-c", "import signal, time\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\ntime.sleep(300)", name]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)
subprocess.Popen(sleep, env={}, start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, sleep, {})
    os._exit(0)
stopped = subprocess.Popen(sleep)
os.kill(stopped.pid, signal.SIGSTOP)
print("ready", flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(300)
"""
STORM = """
import os, sys, time
print("ready", flush=True)
while True:
    if os.fork():
        os._exit(0)
    os.environ.clear()
    time.sleep(0.002)
"""


def named(name: str) -> set[int]:
    """The living processes that carry `name` in their arguments."""
    found = set()
    for pid, row in processes.table().items():
        try:
            if not row.dead and name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.add(pid)
        except OSError:
            continue
    return found


@pytest.fixture
def tree(session: Session) -> Session:
    session.start(sys.executable, "-c", TREE, session.name)
    session.wait_output(b"ready")
    until(lambda: len(named(session.name)) == 6)
    return session


def test_stop_ends_the_whole_tree_and_the_result_is_written(tree: Session) -> None:
    assert tree.op("stop", grace_s=0.2)["ok"]
    result = tree.result()
    assert (result["state"], result["reason"]) == ("killed", "killed-by-user")
    assert not named(tree.name)
    assert "killed" in tree.events()[-1]["text"]
    assert "terminated" in tree.events()[-1]["text"]


def test_kill_9_of_the_runner_leaves_nothing(tree: Session) -> None:
    os.kill(tree.state()["runner"]["pid"], signal.SIGKILL)
    until(lambda: tree.sandbox.poll())
    assert not named(tree.name)
    assert tree.sandbox.poll() == Exit(None, "terminated")


def test_terminate_ends_what_a_dead_guard_left(tree: Session) -> None:
    os.kill(tree.state()["guard"]["pid"], signal.SIGKILL)
    tree.sandbox.terminate()
    assert not named(tree.name)


def test_terminate_ends_what_a_dead_guard_and_a_dead_runner_left_marked(session: Session) -> None:
    session.start("sh", "-c", "setsid sleep 300 & echo ready; sleep 300")
    session.wait_output(b"ready")
    os.kill(session.state()["guard"]["pid"], signal.SIGKILL)
    os.kill(session.state()["runner"]["pid"], signal.SIGKILL)
    session.sandbox.terminate()
    assert not processes.members(session.name)


def test_a_fork_storm_that_clears_its_environment_is_ended(session: Session) -> None:
    session.start(sys.executable, "-c", STORM, session.name)
    session.wait_output(b"ready")
    session.sandbox.terminate()
    for _ in range(50):  # one look can miss what forks every 2 ms
        assert not named(session.name)


def test_sigterm_to_the_sandbox_lets_the_command_finish_and_keeps_its_work(session: Session) -> None:
    session.start("sh", "-c", "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    session.wait_output(b"ready")
    os.kill(session.state()["guard"]["pid"], signal.SIGTERM)
    result = session.result()
    assert session.stdout() == b"ready\nsaved\n"
    assert (result["state"], result["exit_code"]) == ("killed", 0)


def test_two_sessions_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = Session(tmp_path), Session(tmp_path)
    try:
        for one in (first, second):
            one.start("sh", "-c", "echo ready; sleep 300")
            one.wait_output(b"ready")
        first.sandbox.terminate()
        assert second.sandbox.poll() is None
        assert second.op("status")["result"]["phase"] == "running"
    finally:
        first.end()
        second.end()


def test_a_session_whose_guard_was_killed_ends_itself_and_never_takes_pid_1_for_its_guard(session: Session) -> None:
    session.start("sh", "-c", "echo ready; sleep 300")
    session.wait_output(b"ready")
    guard = session.state()["guard"]["pid"]
    os.kill(guard, signal.SIGKILL)
    assert session.result()["state"] == "killed"
    assert session.state()["guard"]["pid"] == guard


def test_a_pid_that_was_used_again_is_not_the_same_process() -> None:
    me = processes.identity(os.getpid())
    assert me is not None and processes.alive(me)
    assert not processes.alive(me._replace(start=me.start - 1))
    assert not processes.alive(me._replace(boot_id="another"))


def test_a_zombie_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    until(lambda: processes.stat(child).state == "Z")
    assert processes.identity(child) is None
    assert child not in processes.descendants(os.getpid())
    os.waitpid(child, 0)
