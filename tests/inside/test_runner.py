"""The runner's life: one at a time, quick to start, honest at its end, and no secret for the agent."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from parhelia_mcp import locks, model, processes
from tests.inside.session import Session, until


def _runner(session: Session) -> list[str]:
    return [sys.executable, "-P", "-m", "parhelia_mcp.inside", str(session.root), "1"]


def test_a_second_runner_of_the_same_session_ends_at_once_and_disturbs_nothing(session: Session) -> None:
    session.start("sh", "-c", "echo ready; sleep 300")
    session.wait_output(b"ready")
    before = (session.folder / "events.jsonl").read_bytes()
    second = subprocess.run(_runner(session), timeout=10, check=False, capture_output=True)
    assert second.returncode == 75
    assert session.op("status")["result"]["phase"] == "running"
    assert (session.folder / "events.jsonl").read_bytes() == before


def test_a_session_that_has_ended_is_not_run_again(session: Session) -> None:
    first = session.start("echo", "once").result()
    assert subprocess.run(_runner(session), timeout=10, check=False, capture_output=True).returncode == 75
    assert session.stdout() == b"once\n"
    assert session.result() == first


def test_state_says_who_runs_before_the_spec_is_there(session: Session) -> None:
    session.start()
    state = until(session.state)
    assert state["phase"] == "starting"
    assert processes.alive(processes.Identity(**state["runner"]))
    assert locks.held(session.folder / "runner.lock")
    session.deliver(("echo", "done"))
    assert session.result()["state"] == "completed"


def test_a_session_can_be_stopped_before_its_spec_comes(session: Session) -> None:
    session.start()
    until(lambda: session.state().get("control"))
    assert session.op("stop")["ok"]
    assert session.result()["state"] == "killed"


def test_a_spec_of_another_session_is_not_taken(session: Session) -> None:
    session.start()
    session.deliver(("echo", "mine"))
    spec = json.loads((session.root / "spec.json").read_text())
    other = Session(session.root.parents[1])
    other.task, other.name, other.root, other.folder = session.task, f"{session.task}.2", session.root, session.root
    other.start()
    assert spec["session"] == session.name
    time.sleep(0)
    assert session.result()["state"] == "completed"
    assert other.sandbox.poll() is None
    other.end()


def test_the_heartbeat_goes_on(session: Session) -> None:
    session.start("sleep", "300")
    first = until(lambda: session.state().get("heartbeat_at"))
    until(lambda: model.moment(session.state()["heartbeat_at"]) - model.moment(first) > timedelta(seconds=2))


def test_the_credential_is_in_no_place_that_the_agent_can_read(session: Session) -> None:
    script = (
        "cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline; ls -l /proc/self/fd; echo ready; sleep 300"
    )
    session.start("sh", "-c", script, credential={"secret": "sk-hush-hush"})
    session.wait_output(b"ready")
    assert b"hush" not in session.stdout()
    everything = b"".join(path.read_bytes() for path in session.root.rglob("*") if path.is_file())
    assert b"hush" not in everything
    state = session.state()
    for pid in (state["guard"]["pid"], state["runner"]["pid"], state["agent"]["pid"]):
        for name in ("environ", "cmdline"):
            assert b"hush" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert session.stdout().count(b"pipe:") == 2


def test_hidden_memory_cannot_be_read_by_the_same_user() -> None:
    def readable(pid: int) -> bool:
        reader = os.fork()
        if reader == 0:
            _become_ordinary()
            try:
                Path(f"/proc/{pid}/environ").read_bytes()
            except PermissionError:
                os._exit(1)
            os._exit(0)
        return os.waitpid(reader, 0)[1] == 0

    ours, theirs = os.pipe()
    hidden = os.fork()
    if hidden == 0:
        _become_ordinary()
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        os.write(theirs, b"o")
        signal.sigwait({signal.SIGUSR1})
        processes.hide_memory()
        os.write(theirs, b"h")
        signal.pause()
    try:
        assert os.read(ours, 1) == b"o"
        assert readable(hidden)
        os.kill(hidden, signal.SIGUSR1)
        assert os.read(ours, 1) == b"h"
        assert not readable(hidden)
    finally:
        os.kill(hidden, signal.SIGKILL)
        os.waitpid(hidden, 0)
        os.close(ours)
        os.close(theirs)


def _become_ordinary() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def test_kill_9_at_any_time_leaves_a_journal_without_gaps(session: Session) -> None:
    session.start("sh", "-c", "while :; do echo x; sleep 0.01; done")
    session.wait_output(b"x")
    os.kill(session.state()["runner"]["pid"], signal.SIGKILL)
    until(lambda: session.sandbox.poll())
    numbers = [event["seq"] for event in session.events()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_session_outlives_the_group_and_the_terminal_that_started_it(tmp_path) -> None:
    session = Session(tmp_path)
    script = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from tests.inside.session import Session
s = Session(Path({str(tmp_path)!r}))
s.task, s.name = {session.task!r}, {session.name!r}
s.root = Path({str(session.root)!r})
s.start("sh", "-c", "echo ready; sleep 300")
print("started", flush=True)
import time; time.sleep(300)
"""
    ours, theirs = os.openpty()
    starter = subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"started\n"
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    os.close(ours)
    os.close(theirs)
    session.sandbox = session.provider.open(type("H", (), {"name": session.name})())
    session.wait_output(b"ready")
    assert session.sandbox.poll() is None
    session.end()
