"""What an editor does with a host that `parhelia ssh-config` made: VS Code Remote's moves, with the real clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attach.room import House
from tests.attach.server import run
from tests.attach.test_ssh_server import free_port
from tests.front import eventually

# As an editor sends it to `sh` on stdin: unpack what was uploaded, start a server that outlives the line, say its port.
INSTALL = f"""
set -e
mkdir -p "$HOME/.editor" && cd "$HOME/.editor"
tar -xzf "$OLDPWD/server.tgz"
nohup {sys.executable} -u serve.py > log 2>&1 < /dev/null &
while ! grep -q port= log; do sleep 0.05; done
cat log
"""
SERVE = """
import http.server, pathlib
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(f"port={server.server_port}", flush=True)
server.serve_forever()
"""


@pytest.fixture
def config(house: House, task: str, tmp_path: Path) -> Path:
    """What the user has in ~/.ssh/config."""
    path = tmp_path / "config"
    path.write_bytes(house.run("ssh-config", task).stdout)
    return path


def test_an_editor_installs_its_server_and_talks_to_it(house: House, task: str, config: Path, tmp_path: Path) -> None:
    host = f"parhelia-{task}"
    (tmp_path / "serve.py").write_text(SERVE)
    (tmp_path / "blob").write_bytes(os.urandom(5_000_000))
    run(["tar", "-C", str(tmp_path), "-czf", str(tmp_path / "server.tgz"), "serve.py", "blob"])
    with master(config, host) as shared:
        sent = run([*shared("sftp", "-b", "-"), host], input=f"put {tmp_path}/server.tgz server.tgz\n".encode())
        assert sent.returncode == 0, sent.stderr
        installed = run([*shared("ssh", "-T"), host, "sh"], input=INSTALL.encode())
        assert installed.returncode == 0, installed.stderr
        port, near = int(installed.stdout.split(b"port=")[1]), free_port()
        forwarded = run([*shared("ssh", "-O", "forward", "-L", f"{near}:127.0.0.1:{port}"), host])
        assert forwarded.returncode == 0, forwarded.stderr
        with socket.create_connection(("127.0.0.1", near), 30) as line:
            assert blob(line) == (tmp_path / "blob").read_bytes()
    with socks(config, host) as proxy:  # another line: the server has outlived the first
        with through(proxy, port) as line:
            assert blob(line) == (tmp_path / "blob").read_bytes()
        with through(proxy, proxy) as line:  # no port of the session
            assert blob(line) == b""


@contextmanager
def master(config: Path, host: str) -> Iterator[Callable[..., list[str]]]:
    """One line that several commands share; gives what makes the argv of one that does."""
    path = f"ControlPath=/tmp/parhelia-editor-{uuid.uuid4().hex[:8]}"

    def shared(program: str, *words: str) -> list[str]:
        return [program, "-F", str(config), "-o", path, *words]

    line = subprocess.Popen([*shared("ssh", "-M", "-N"), host], stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: run([*shared("ssh", "-O", "check"), host]).returncode == 0, what="the shared line")
        yield shared
        assert run([*shared("ssh", "-O", "exit"), host]).returncode == 0
    finally:
        line.terminate()
        line.wait()


@contextmanager
def socks(config: Path, host: str) -> Iterator[int]:
    """A port of this machine that leads into the session by SOCKS while the block lasts."""
    port = free_port()
    argv = ["ssh", "-F", str(config), "-v", "-T", "-D", f"127.0.0.1:{port}", host, "sh"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdin and process.stdout
        process.stdin.write(b"echo ready; sleep 600\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield port
    finally:
        process.kill()
        process.communicate()


def through(proxy: int, port: int) -> socket.socket:
    """A line to a port of the session over SOCKS 5, by name as editors ask for it."""
    line = socket.create_connection(("127.0.0.1", proxy), 30)
    line.sendall(b"\x05\x01\x00")
    assert line.recv(2) == b"\x05\x00"
    line.sendall(b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big"))
    line.recv(10)
    return line


def blob(line: socket.socket) -> bytes:
    """What the editor's server gives for the file that was uploaded; nothing where it cannot be reached."""
    try:
        line.sendall(b"GET /blob HTTP/1.0\r\n\r\n")
        with line.makefile("rb") as answer:
            return answer.read().partition(b"\r\n\r\n")[2]
    except OSError:
        return b""
