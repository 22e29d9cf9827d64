"""The session's ssh server, used with the real OpenSSH clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parhelia_mcp.ssh import client
from tests.attach.server import MARK, SESSION, Server, run, start
from tests.front import eventually

BIG = os.urandom(7_000_003)


def test_a_command_gets_its_input_and_gives_both_outputs_and_its_code(server: Server) -> None:
    done = server.ssh("cat; echo oops >&2; exit 7", input=b"text")
    assert (done.stdout, done.stderr, done.returncode) == (b"text", b"oops\n", 7)


def test_large_input_and_output_arrive_whole(server: Server) -> None:
    for _ in range(3):
        assert server.ssh("cat", input=BIG).stdout == BIG


def test_a_missing_command_is_127_and_a_signal_is_told(server: Server) -> None:
    assert server.ssh("no-such-program").returncode == 127
    assert server.ssh("kill -9 $$").returncode == 255


def test_a_command_starts_in_the_workspace_without_the_servers_environment(server: Server) -> None:
    told = server.ssh("pwd; env").stdout.decode()
    assert told.splitlines()[0] == str(server.workspace)
    assert "SSH_AUTH_SOCK" not in told and "PARHELIA_SSH" not in told


def test_a_terminal_has_the_clients_size_and_follows_it(server: Server) -> None:
    with on_terminal(server, "trap 'stty size' WINCH; stty size; echo $TERM; while :; do sleep 0.05; done") as (
        pane,
        see,
    ):
        see("24 80")
        see("screen-256color")
        run(["tmux", *pane, "resize-window", "-x", "101", "-y", "33"])
        see("33 101")


def test_a_terminal_this_machine_does_not_know_becomes_one_it_does(server: Server) -> None:
    done = subprocess.run(
        client.command(server.config, SESSION, ["echo $TERM"], terminal=True),
        env={**os.environ, "TERM": "xterm-ghostty"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.strip() == b"xterm-256color"


def test_a_program_on_a_terminal_is_hung_up_when_the_client_goes(server: Server) -> None:
    gone = server.workspace / "gone"
    started = server.workspace / "started"
    argv = client.command(
        server.config,
        SESSION,
        [f"trap 'touch {gone}; exit' HUP; touch {started}; while :; do sleep 0.05; done"],
        terminal=True,
    )
    attached = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(started.exists)
    attached.kill()
    attached.wait()
    eventually(gone.exists)


def test_the_end_of_input_types_nothing_into_a_terminal(server: Server) -> None:
    """A line that is lost looks like the end of input. A shell in a terminal would take a Ctrl-D for its own end."""
    argv = client.command(server.config, SESSION, ["read -t 1 line; echo code=$?"], terminal=True)
    assert b"code=142" in run(argv).stdout.replace(b"\r", b"")


@pytest.mark.parametrize("protocol", [[], ["-O"]], ids=["sftp", "legacy"])
def test_scp_moves_files_both_ways_from_the_workspace(server: Server, tmp_path: Path, protocol: list[str]) -> None:
    (tmp_path / "sent").write_bytes(BIG)
    assert server.tool("scp", *protocol, str(tmp_path / "sent"), f"{server.host}:arrived").returncode == 0
    assert (server.workspace / "arrived").read_bytes() == BIG
    assert server.tool("scp", *protocol, f"{server.host}:arrived", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == BIG


def test_sftp_begins_in_the_workspace(server: Server) -> None:
    told = server.tool("sftp", server.host, input=b"pwd\nmkdir made\n")
    assert str(server.workspace).encode() in told.stdout
    assert (server.workspace / "made").is_dir()


def test_rsync_brings_a_tree(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    for number in range(50):
        (source / f"{number % 7}").mkdir(parents=True, exist_ok=True)
        (source / f"{number % 7}" / f"{number}").write_text(f"{number}")
    done = run(["rsync", "-a", "-e", f"ssh -F {server.config}", f"{source}/", f"{server.host}:tree/"])
    assert done.returncode == 0, done.stderr
    assert run(["diff", "-r", str(source), str(server.workspace / "tree")]).returncode == 0


def test_only_the_sessions_own_ports_are_forwarded(server: Server, tmp_path: Path) -> None:
    with (
        web(tmp_path, mark=True) as own,
        web(tmp_path, mark=False) as foreign,
        tunnelled(server, own, foreign) as ports,
    ):
        assert b"200 OK" in ask(ports[0])
        assert ask(ports[1]) == b""


def test_nothing_is_forwarded_back_and_no_agent_or_display_comes_along(server: Server) -> None:
    back = server.ssh("true", options=["-R", f"{free_port()}:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"])
    assert back.returncode == 255 and b"forwarding failed" in back.stderr
    asked = server.ssh("echo agent=$SSH_AUTH_SOCK display=$DISPLAY", options=["-A", "-X"])
    assert asked.stdout == b"agent= display=\n"


def test_the_server_runs_as_the_agents_user_and_its_memory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    uid = 65534 if os.getuid() == 0 else os.getuid()
    running = start(tmp_path, uid=uid, cwd="/")
    try:
        assert running.ssh("id -u; id -G").stdout.split()[:1] == [str(uid).encode()]
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in Path(f"/proc/{running.process.pid}/status").read_text()
        assert running.ssh(f"cat /proc/{running.process.pid}/environ").stderr.endswith(b"Permission denied\n")
    finally:
        running.end()


def test_the_server_ends_with_the_runner_and_takes_a_fixed_port_again(tmp_path: Path) -> None:
    running = start(tmp_path)
    running.process.stdin.close()
    assert running.process.wait(10) == 0
    again = start(tmp_path, port=running.port)
    assert again.port == running.port
    again.end()


def test_no_key_is_in_the_servers_arguments_or_environment(server: Server) -> None:
    process = Path(f"/proc/{server.process.pid}")
    shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert b"ssh-ed25519" not in shown and b"PRIVATE" not in shown


@contextmanager
def on_terminal(server: Server, remote: str) -> Iterator:
    """A tmux of the test's own with ssh in it: its address, and a function that waits until a text is on its screen."""
    pane = ["-S", str(server.home / "tmux"), "-f", "/dev/null"]
    argv = client.command(server.config, SESSION, [remote], terminal=True)
    run(
        [
            "tmux",
            *pane,
            "set",
            "-g",
            "default-terminal",
            "screen-256color",
            ";",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            *argv,
        ]
    )

    def see(text: str) -> None:
        eventually(lambda: text in run(["tmux", *pane, "capture-pane", "-p"]).stdout.decode())

    try:
        yield pane, see
    finally:
        run(["tmux", *pane, "kill-server"])


@contextmanager
def web(folder: Path, *, mark: bool) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **({MARK[0]: MARK[1]} if mark else {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: ask(port))
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def tunnelled(server: Server, *ports: int) -> Iterator[list[int]]:
    local = [free_port() for _ in ports]
    forwards = [word for near, far in zip(local, ports, strict=True) for word in ("-L", f"{near}:127.0.0.1:{far}")]
    argv = [
        "ssh",
        "-F",
        str(server.config),
        *forwards,
        "-o",
        "ExitOnForwardFailure=yes",
        server.host,
        "echo ready; cat",
    ]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        yield local
    finally:
        process.kill()
        process.communicate()


def ask(port: int) -> bytes:
    """What a web server on this port says to a request; nothing where none answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return peer.recv(100)
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
