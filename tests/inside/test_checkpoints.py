"""A session's work is kept while it runs and when it ends, and a session can start from what was kept."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from parhelia_mcp import processes, spec
from parhelia_mcp.checkpoint import session as session_parts
from parhelia_mcp.checkpoint.create import create
from parhelia_mcp.checkpoint.manifest import AgentFacts, Facts
from parhelia_mcp.checkpoint.restore import restore
from parhelia_mcp.checkpoint.store import Store, list_all
from tests.inside.session import Session, until


def test_a_checkpoint_on_request_has_the_files_and_the_session_goes_on(session: Session, tmp_path: Path) -> None:
    session.start("sh", "-c", "echo kept > file; echo ready; i=0; while :; do i=$((i+1)); echo $i > count; done")
    session.wait_output(b"ready")
    made = session.op("checkpoint", note="before lunch")["result"]
    assert (made["trigger"], made["consistent"], made["partial"]) == ("manual", False, False)
    restore(Store(session.root / "checkpoints"), made["checkpoint_id"], tmp_path / "back")
    assert (tmp_path / "back" / "file").read_text() == "kept\n"
    count = (session.workspace / "count").read_text()
    until(lambda: (session.workspace / "count").read_text() not in ("", count))
    event = next(event for event in session.events() if event["kind"] == "checkpoint")
    assert (event["checkpoint_id"], event["note"]) == (made["checkpoint_id"], "before lunch")


def test_the_end_is_kept_with_how_it_ended(session: Session) -> None:
    session.start("sh", "-c", "echo x > file; exit 1").result()
    (last,) = list_all(Store(session.root / "checkpoints"))
    assert (last.trigger, last.consistent, last.session) == ("error", True, session.name)


def test_a_kill_keeps_a_last_checkpoint(session: Session) -> None:
    session.start("sh", "-c", "echo x > file; echo ready; sleep 300")
    session.wait_output(b"ready")
    session.op("stop", grace_s=2)
    session.result()
    assert [each.trigger for each in list_all(Store(session.root / "checkpoints"))] == ["shutdown"]


def test_the_agents_own_socket_takes_a_checkpoint_that_names_the_tool(session: Session) -> None:
    session.start("sh", "-c", "echo ready; sleep 300")
    session.wait_output(b"ready")
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(session.state()["agent_control"])
        line.sendall(b'{"id": 1, "op": "checkpoint", "args": {"tool": "rm -rf /"}}\n')
        made = json.loads(line.makefile().readline())["result"]
    assert (made["trigger"], made["pending_tool"], made["consistent"]) == ("risky", "rm -rf /", False)


def test_periodic_checkpoints_come_only_when_something_changed(session: Session) -> None:
    session.start()
    session.deliver(
        ("sh", "-c", "echo x > file; echo ready; while [ ! -e ../go ]; do sleep 0.05; done; echo y > file; sleep 300"),
        checkpoint=spec.CheckpointPolicy(interval_minutes=0.3 / 60),
    )
    taken = lambda: [event for event in session.events() if event["kind"] == "checkpoint"]  # noqa: E731
    until(taken)
    beat = session.state()["heartbeat_at"]
    until(lambda: session.state()["heartbeat_at"] != beat)
    assert len(taken()) == 1
    (session.root / "go").touch()
    until(lambda: len(taken()) == 2)


def test_a_session_starts_from_a_checkpoint_and_keeps_the_workspace_that_was_there(session: Session) -> None:
    session.start("sh", "-c", "echo old > file; mkdir empty").result()
    (kept,) = list_all(Store(session.root / "checkpoints"))
    (session.workspace / "later").write_text("mine")
    second = session.next()
    second.start()
    second.deliver(("sh", "-c", "cat file; ls"), workspace=spec.Workspace("checkpoint", checkpoint=kept.hash))
    assert second.result()["state"] == "completed"
    assert second.stdout() == b"old\nempty\nfile\n"
    assert (session.root / "workspace.1" / "later").read_text() == "mine"


def test_a_checkpoint_that_is_damaged_is_not_started_from(session: Session) -> None:
    session.start("sh", "-c", "echo old > file").result()
    (kept,) = list_all(Store(session.root / "checkpoints"))
    for pack in (session.root / "checkpoints" / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
    second = session.next()
    second.start()
    second.deliver(("true",), workspace=spec.Workspace("checkpoint", checkpoint=kept.hash))
    result = second.result()
    assert (result["state"], result["reason"]) == ("failed", "start-failed")


def test_a_stopped_tree_goes_on_and_what_was_stopped_stays_so() -> None:
    running, stopped = os.fork(), 0
    if running == 0:
        while True:
            pass
    stopped = os.fork()
    if stopped == 0:
        os.kill(os.getpid(), 19)
        os._exit(0)
    try:
        until(lambda: processes.stat(stopped).state == "T")
        with processes.stopped(lambda: {pid: processes.stat(pid) for pid in (running, stopped)}):
            until(lambda: processes.stat(running).state == "T")
        until(lambda: processes.stat(running).state == "R")
        assert processes.stat(stopped).state == "T"
    finally:
        for pid in (running, stopped):
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def test_the_conversation_comes_back_and_a_later_one_is_out_of_sight(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    project, tasks = home / ".claude/projects/-slug", home / ".claude/tasks/talk"
    for folder in (work, project / "talk/subagents", tasks):
        folder.mkdir(parents=True)
    (project / "talk.jsonl").write_text("then\n")
    (tasks / "1.json").write_text("{}")
    store = Store(tmp_path / "checkpoints")
    sources = list(session_parts.sources(work, home, "talk", ()))
    talk = session_parts.conversation_in(sources)
    made = create(store, sources, Facts(trigger="manual", agent=AgentFacts(session_id="talk", transcript=talk)))
    (project / "talk.jsonl").write_text("then\nlater\n")
    (tasks / "2.json").write_text("{}")
    session_parts.restore(store, made, tmp_path / "new", home, "-slug", tmp_path / "aside")
    assert (project / "talk.jsonl").read_text() == "then\n"
    assert (project / "talk/subagents").is_dir()
    assert [path.name for path in tasks.iterdir()] == ["1.json"]
    assert (tmp_path / "aside/talk.jsonl").read_text() == "then\nlater\n"
    assert [path.name for path in project.parent.iterdir()] == ["-slug"]


def test_a_conversation_that_leads_elsewhere_is_not_kept(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    project = home / ".claude/projects/-slug"
    for folder in (work, project, home / ".claude/tasks"):
        folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("not the agent's")
    (project / "talk.jsonl").symlink_to(tmp_path / "secret")
    assert [one.name for one in session_parts.sources(work, home, "talk", ())] == ["workspace"]
    (project / "talk.jsonl").unlink()
    (project / "talk.jsonl").write_text("mine")
    (home / ".claude/tasks/talk").symlink_to(tmp_path)
    assert "extra/tasks" not in [one.name for one in session_parts.sources(work, home, "talk", ())]
