"""What a command session keeps of its command: argv, bytes, exit code, and nothing of ours around it."""

from __future__ import annotations

import hashlib
import sys

import pytest

from parhelia_mcp import processes
from tests.inside.session import Session, until


def test_output_and_arguments_are_byte_exact(session: Session) -> None:
    arguments = ("a b", "$(id)", "`x`", "line\nline", "'\"", "żółć 🦜", "--", "")
    program = "import sys, os; os.write(1, '\\0'.join(sys.argv[1:]).encode()); os.write(2, bytes(range(256)))"
    result = session.start(sys.executable, "-c", program, *arguments).result()
    assert session.stdout() == "\0".join(arguments).encode()
    assert session.stderr() == bytes(range(256))
    assert (result["state"], result["reason"], result["exit_code"]) == ("completed", "agent-exit", 0)


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        (("sh", "-c", "exit 3"), 3, "agent-exit"),
        (("sh", "-c", "kill -9 $$"), 137, "agent-exit"),
        (("no-such-program-here",), 127, "agent-error"),
        (("/etc/passwd",), 126, "agent-error"),
    ],
)
def test_exit_code_is_the_shells(session: Session, command: tuple[str, ...], code: int, reason: str) -> None:
    result = session.start(*command).result()
    assert (result["state"], result["exit_code"], result["reason"]) == ("failed", code, reason)
    assert "error" in session.events()[-1]["text"]


def test_log_begins_with_what_was_set_up_and_ends_with_what_ended_it(session: Session) -> None:
    session.start("true").result()
    kinds = [event["kind"] for event in session.events()]
    assert kinds[:5] == ["entrypoint", "config", "hook", "workspace", "agent-started"]
    assert kinds[-3:] == ["agent-exited", "checkpoint", "result"]
    assert all(event["kind"] in event["text"] for event in session.events()[:4])
    assert [event["seq"] for event in session.events()] == list(range(1, len(kinds) + 1))


def test_stdin_is_empty_and_the_environment_is_listed(tmp_path) -> None:
    session = Session(tmp_path, environment={"SECRET_OF_THE_USER": "hush"})
    try:
        session.start("sh", "-c", "cat; env; pwd; ls -d $HOME").result()
        assert b"hush" not in session.stdout()
        assert str(session.workspace).encode() in session.stdout()
        assert str(session.root / "home").encode() in session.stdout()
    finally:
        session.end()


def test_two_hundred_megabytes_pass_and_nobody_grows(session: Session) -> None:
    line = b"0123456789abcdef" * 4 + b"\n"
    size = 200 * 1024 * 1024 // len(line) * len(line)
    session.start("sh", "-c", f"yes {line.decode().strip()} | head -c {size}; sleep 60")
    until(lambda: (session.folder / "stdout.log").exists(), within_s=10)
    until(lambda: (session.folder / "stdout.log").stat().st_size == size, within_s=40)
    status = (session.state()["runner"]["pid"], session.state()["guard"]["pid"])
    peaks = [_peak_mb(pid) for pid in status]
    assert max(peaks) < 80, peaks
    digest = hashlib.sha256()
    with (session.folder / "stdout.log").open("rb") as log:
        while block := log.read(1 << 20):
            digest.update(block)
    assert digest.digest() == hashlib.sha256(line * (size // len(line))).digest()


def _peak_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def test_what_writes_after_the_command_ended_is_kept_and_what_holds_on_is_ended(session: Session) -> None:
    script = "(sleep 0.3; echo late) & (trap '' TERM HUP; sleep 300; echo never) & echo early"
    result = session.start("bash", "-c", script).result()
    assert session.stdout() == b"early\nlate\n"
    assert result["state"] == "completed"
    assert not processes.members(session.name)


def test_writing_to_dev_stdout_does_not_truncate_the_log(session: Session) -> None:
    session.start("sh", "-c", "echo one; echo two > /dev/stdout; echo three").result()
    assert session.stdout() == b"one\ntwo\nthree\n"


def test_core_dumps_are_off_and_files_are_private(session: Session) -> None:
    session.start("sh", "-c", "ulimit -c").result()
    assert session.stdout() == b"0\n"
    for path in session.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert session.folder.stat().st_mode & 0o777 == 0o700
