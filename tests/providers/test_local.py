"""The local provider: found again by anyone, never twice, contained in the task's directory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from parhelia_mcp import files, model, processes
from parhelia_mcp.errors import NotFound, Problem, Refused, Unreachable
from parhelia_mcp.providers import local
from parhelia_mcp.providers.base import Exit, Handle
from parhelia_mcp.providers.local import Local
from tests.inside.session import OWNER, Session, until


@pytest.fixture
def session(tmp_path: Path):
    made = Session(tmp_path)
    yield made
    made.end()


@pytest.fixture
def running(session: Session) -> Session:
    session.start("sh", "-c", "echo ready; sleep 300")
    session.wait_output(b"ready")
    return session


def test_the_same_name_is_adopted_and_never_doubled(session: Session) -> None:
    session.start()
    handles = []
    starters = [
        threading.Thread(target=lambda: handles.append(session.provider.start(session.sandbox_spec))) for _ in range(8)
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert handles == [session.handle] * 8
    session.deliver(("sh", "-c", "echo ready; sleep 300"))
    session.wait_output(b"ready")
    assert [event["kind"] for event in session.events()].count("entrypoint") == 1


def test_a_start_whose_reply_was_lost_is_adopted(session: Session) -> None:
    """The starter dies after the process is there and before that is recorded."""
    session.start("sh", "-c", "echo ready; sleep 300")
    session.wait_output(b"ready")
    (session.folder / "sandbox.json").unlink()
    session.provider.start(session.sandbox_spec)
    until(lambda: not processes.alive(session.provider.open(session.handle)._guards()[0]))
    assert session.sandbox.poll() is None
    assert session.op("status")["result"]["phase"] == "running"
    assert [event["kind"] for event in session.events()].count("entrypoint") == 1


def test_another_process_finds_and_ends_it(running: Session, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from parhelia_mcp.providers.local import Local
provider = Local(Path({str(tmp_path)!r}))
(found,) = provider.list({OWNER!r})
box = provider.open(found.handle)
assert box.poll() is None
print(found.handle.name, found.tags["owner"], box.terminate().cause, provider.list({OWNER!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == f"{running.name} {OWNER} terminated []\n", done.stderr
    assert not processes.members(running.name)
    assert running.sandbox.poll() == running.sandbox.terminate() == Exit(None, "terminated")


def test_only_our_own_are_listed(running: Session) -> None:
    assert running.provider.list("somebody-else") == []


def test_a_sandbox_that_ended_by_itself_says_so(session: Session) -> None:
    session.start("true").result()
    assert session.sandbox.poll() == Exit(0, "")
    assert session.sandbox.terminate() == Exit(0, "")
    assert session.provider.list(OWNER) == []


def test_one_that_was_never_started_has_vanished(tmp_path: Path) -> None:
    assert Local(tmp_path).open(Handle("local", "task-00000000.1", {})).poll() == Exit(None, "vanished")


def test_exec_runs_in_the_workspace_with_exact_bytes(running: Session) -> None:
    done = running.sandbox.exec(("sh", "-c", "pwd; cat; echo err >&2; exit 4"), stdin=b"\x00\xff")
    assert done.stdout == f"{running.workspace}\n".encode() + b"\x00\xff"
    assert (done.code, done.stderr) == (4, b"err\n")


def test_exec_past_its_deadline_is_ended_with_its_children(running: Session) -> None:
    with pytest.raises(Unreachable, match="did not end"):
        running.sandbox.exec(("sh", "-c", "sleep 301 & sleep 302"), deadline=0.3)
    arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes.members(running.name)]
    assert not [line for line in arguments if b"301" in line or b"302" in line]


def test_exec_in_a_dead_sandbox_is_unreachable(running: Session) -> None:
    running.sandbox.terminate()
    with pytest.raises(Unreachable):
        running.sandbox.exec(("true",))


def test_a_program_that_is_not_there_is_127(running: Session) -> None:
    assert running.sandbox.exec(("no-such-program",)).code == 127


def test_files_go_in_and_out_also_when_it_is_dead(running: Session, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    running.sandbox.put("sessions/1/in/deep", source)
    running.sandbox.put("sessions/1/small", b"x")
    running.sandbox.terminate()
    running.sandbox.get("sessions/1/in/deep", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert stat.S_IMODE((running.folder / "small").stat().st_mode) == 0o600
    assert running.sandbox.read("sessions/1/in/deep", 5, 10) == source.read_bytes()[5:15]
    assert running.sandbox.read("sessions/1/none") == b""
    assert running.sandbox.names("sessions") == ["1"]
    assert running.sandbox.names("nothing/here") == []
    with pytest.raises(NotFound):
        running.sandbox.get("sessions/1/none", tmp_path / "none")


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../../secret", "", "link/x", "file-link", "fifo", "workspace"]
)
def test_no_path_leaves_the_task_or_follows_a_link(running: Session, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("hush")
    (running.root / "link").symlink_to(tmp_path)
    (running.root / "file-link").symlink_to(tmp_path / "secret")
    os.mkfifo(running.root / "fifo")
    with pytest.raises(Problem):
        running.sandbox.read(path)
    with pytest.raises(Problem):
        running.sandbox.get(path, tmp_path / "out")
    if path not in ("file-link", "fifo", "workspace"):
        with pytest.raises(Refused):
            running.sandbox.put(path, b"evil")
    assert (tmp_path / "secret").read_text() == "hush"
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "out").exists()


def test_a_put_over_a_link_replaces_the_link(running: Session, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    (running.root / "file-link").symlink_to(tmp_path / "secret")
    running.sandbox.put("file-link", b"new")
    assert (tmp_path / "secret").read_text() == "hush"
    assert running.sandbox.read("file-link") == b"new"


def test_a_gpu_that_is_not_here_is_refused_and_nothing_is_started(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.start()
    other = replace(session.sandbox_spec, name=f"{session.task}.2", sizes=model.Sizes(1, 1, "H900"))
    with pytest.raises(Refused, match="H900"):
        session.provider.start(other)
    assert not (session.root / "sessions" / "2").exists()


def test_gpus_are_named_as_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\ncat <<E\nGPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)\n"
        "GPU 2: Tesla T4 (UUID: GPU-3)\nGPU 3: NVIDIA A10G (UUID: GPU-4)\nGPU 4: NVIDIA GeForce RTX 4090 (UUID: GPU-5)\nE\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert local.Local(tmp_path).properties.gpus == ("A100", "H100", "T4", "A10G", "RTX-4090")


def test_a_tunnel_leads_to_this_machine(running: Session) -> None:
    assert running.sandbox.tunnel(8123) == ("127.0.0.1", 8123)
    with pytest.raises(Unreachable):
        Local(running.root).open(Handle("local", "task-00000000.1", {})).tunnel(8123)


def test_the_starter_is_not_waited_for_by_the_runner(running: Session) -> None:
    """What the starter is given survives in files alone: nothing of it is in sandbox.json."""
    record = files.read_json(running.folder / "sandbox.json")
    assert set(record) == {"v", "guard", "tags", "created_at"}
