"""The port on this machine, and lines that break."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

from parhelia_mcp.errors import Unreachable
from parhelia_mcp.ssh import client
from parhelia_mcp.ssh.port import LocalPort
from tests.attach.server import SESSION, Server, run, start
from tests.attach.test_ssh_server import free_port
from tests.front import eventually


def through(server: Server, local: LocalPort) -> list[str]:
    return client.command(client.configure(server.keys, "127.0.0.1", local.port), SESSION, ["echo there; cat"])


def test_a_taken_port_is_left_alone_and_another_one_opens(server: Server) -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        wanted = owner.getsockname()[1]
        local = LocalPort(lambda: ("127.0.0.1", server.port), wanted)
        assert local.moved and local.port != wanted
        assert run(through(server, local), input=b"x" * 1_000_000).stdout == b"there\n" + b"x" * 1_000_000
        local.close()
    free = LocalPort(lambda: ("127.0.0.1", server.port), wanted)
    assert (free.port, free.moved) == (wanted, False)
    free.close()


def test_the_port_follows_a_tunnel_that_moves_and_closes_when_there_is_none(tmp_path: Path) -> None:
    first = start(tmp_path)
    where = {"port": first.port}

    def tunnel() -> tuple[str, int]:
        if not where:
            raise Unreachable("no-tunnel", "gone")
        return "127.0.0.1", where["port"]

    local = LocalPort(tunnel, free_port())
    argv = through(first, local)
    assert run(argv).stdout == b"there\n"
    first.end()
    second = start(tmp_path)
    where["port"] = second.port
    argv = through(second, local)
    assert run(argv).stdout == b"there\n"
    where.clear()
    lost = run(argv)
    problem = client.failure(lost.stderr.decode(), first.keys)
    assert problem is not None and problem.code == "ssh-closed" and client.passing(problem)
    second.end()
    local.close()


def test_ten_cuts_of_a_terminal_leave_no_process_and_no_descriptor_behind(server: Server) -> None:
    """The line is cut under an open terminal ten times; each time what ran on it ends and a new one opens at once."""
    before = descriptors(server)
    for _ in range(10):
        local = CutPort(server.port)
        argv = client.command(
            client.configure(server.keys, "127.0.0.1", local.port), SESSION, ["echo there; sleep 60"], terminal=True
        )
        attached = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert attached.stdout and attached.stdout.readline() == b"there\r\n"
        local.cut()
        _, stderr = attached.communicate(timeout=10)
        assert attached.returncode == 255
        problem = client.failure(stderr.decode(), server.keys)
        assert problem is not None and problem.code == "ssh-reset", stderr
    eventually(lambda: not children(server) and descriptors(server) <= before)


def test_a_transfer_cut_ten_times_is_whole_in_the_end(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(40_000_000))
    target = server.workspace / "big"
    for number in range(11):
        local = CutPort(server.port)
        config = client.configure(server.keys, "127.0.0.1", local.port)
        argv = ["sftp", "-q", "-b", "-", "-F", str(config), server.host]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.stdin
        process.stdin.write(f"{'reput' if target.exists() else 'put'} {source} big\n".encode())
        process.stdin.close()
        if number < 10:
            size = target.stat().st_size if target.exists() else 0
            eventually(partial(larger, target, size))
            local.cut()
        process.wait(30)
    assert process.returncode == 0
    assert run(["cmp", str(source), str(target)]).returncode == 0


def larger(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size > size


class CutPort(LocalPort):
    """A local port whose open lines a test can cut as a broken network does."""

    def __init__(self, port: int) -> None:
        self.lines: list[socket.socket] = []
        super().__init__(lambda: ("127.0.0.1", port), 0)

    def _join(self, near: socket.socket) -> None:
        self.lines.append(near)
        super()._join(near)

    def cut(self) -> None:
        self.close()
        for line in self.lines:
            line.shutdown(socket.SHUT_RDWR)


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def children(server: Server) -> list[str]:
    task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return task.read_text().split()


def test_a_silent_line_is_noticed_by_the_client(server: Server) -> None:
    """Nothing answers behind an open port: the client leaves by its own limit and says why."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        config = client.configure(server.keys, "127.0.0.1", silent.getsockname()[1])
        began = time.monotonic()
        done = run(["ssh", "-F", str(config), "-o", "ConnectTimeout=1", server.host, "true"])
        assert time.monotonic() - began < 10
    problem = client.failure(done.stderr.decode(), server.keys)
    assert problem is not None and problem.code == "ssh-timeout"
