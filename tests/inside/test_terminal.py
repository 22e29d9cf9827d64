"""What a person sees in tmux, and that the session does without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from parhelia_mcp.plain import clean
from tests.inside.session import Session, until


def _tmux(session: Session, *command: str) -> str:
    socket = until(lambda: session.state().get("tmux", {}).get("socket"))
    done = subprocess.run(["tmux", "-S", socket, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_view_shows_the_output_without_its_escapes(session: Session) -> None:
    session.start("sh", "-c", r"printf 'hello \033]0;title\007\033[2J\033[31mred\033[0m żółć\n'; sleep 300")
    until(lambda: "hello red" in _tmux(session, "capture-pane", "-p", "-t", "=parhelia:agent"))
    assert _tmux(session, "list-windows", "-t", "=parhelia", "-F", "#W").split() == ["agent", "shell", "log"]
    until(lambda: "command started" in _tmux(session, "capture-pane", "-p", "-t", "=parhelia:log"))


def test_the_shell_is_in_the_workspace_and_sees_no_secret(session: Session) -> None:
    session.start("sleep", "300", credential={"secret": "hush"})
    _tmux(session, "send-keys", "-t", "=parhelia:shell", "echo at $PWD; env", "Enter")
    shown = lambda: _tmux(session, "capture-pane", "-p", "-J", "-S", "-", "-t", "=parhelia:shell")  # noqa: E731
    until(lambda: f"at {session.workspace}" in shown().replace("\n", ""))
    assert "hush" not in shown()


def test_a_flood_is_shown_by_its_end_and_bounded(session: Session) -> None:
    session.start("sh", "-c", "seq 1 3000000; echo the end; sleep 300")
    until(lambda: "the end" in _tmux(session, "capture-pane", "-p", "-t", "=parhelia:agent"))
    assert (Path(session.state()["runtime"]) / "view" / "view.txt").stat().st_size < 9 << 20


def test_without_tmux_the_session_runs_and_says_so(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sleep", "echo"):
        (programs / name).symlink_to(f"/bin/{name}")
    session = Session(tmp_path, environment={"PATH": str(programs)})
    try:
        result = session.start("sh", "-c", "sleep 0.3; echo done").result()
        assert (result["state"], session.stdout()) == ("completed", b"done\n")
        assert "tmux is not installed" in session.text()
    finally:
        session.end()


def test_tmux_is_gone_with_the_session(session: Session) -> None:
    session.start("sh", "-c", "sleep 1")
    socket = until(lambda: session.state().get("tmux", {}).get("socket"))
    session.result()
    assert not os.path.exists(socket)  # noqa: PTH110


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]52;c;aGk=\x07x", "x"),
        ("\x1b]0;title\x1b\\x", "x"),
        ("\x1bPpayload\x1b\\x", "x"),
        ("a\x1b[201~b", "ab"),
        ("a\u202eb\x9b0mc\x00", "abc"),
        ("10 %\r100 %\r\n", "10 %\n100 %\n"),
    ],
)
def test_clean_text_has_nothing_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert clean(text) == shown
