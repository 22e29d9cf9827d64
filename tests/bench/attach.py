"""How soon a person is in the room, and what our ssh server and port cost beside a bare asyncssh server."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from contextlib import closing
from pathlib import Path

from parhelia_mcp.ssh import client
from parhelia_mcp.ssh.keys import Keys
from parhelia_mcp.ssh.port import LocalPort
from tests.attach.room import House
from tests.bench import Row, at_most, medians, program
from tests.front import PARHELIA

ROUNDS = 9
BARE = """
import asyncio, sys, asyncssh
class Server(asyncssh.SSHServer):
    def begin_auth(self, username): return False
async def main():
    server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[sys.argv[1]],
                                          process_factory=lambda process: process.exit(0), compression_algs=None)
    print(server.get_port(), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def rows(workdir: Path) -> list[Row]:
    house = House(workdir)
    try:
        task = house.begin("while :; do sleep 1; done")
        house.listening(task)
        seconds = sorted(_to_first_prompt(house, task) for _ in range(ROUNDS))[ROUNDS // 2]
        return [at_most("attach on local: command line to first prompt", seconds, "s", 1.0), _overhead(house, task)]
    finally:
        house.close()


def _to_first_prompt(house: House, task: str) -> float:
    """From the start of the command line to tmux's status line on the terminal."""
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PARHELIA, [PARHELIA, "attach", task], {**house.env, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    seen = b""
    while b"| running" not in seen:
        seen += os.read(terminal, 65536)
    took = time.perf_counter() - began
    os.close(terminal)
    os.waitpid(pid, 0)
    return took


def _overhead(house: House, task: str) -> Row:
    """The same ssh client and one `true`: through our port to a session, and straight to a server that does nothing."""
    keys = Keys(f"{task}.1", house.keys(task))
    server = house.listening(task)["ssh"]["port"]
    argv = [sys.executable, "-c", BARE, str(keys.directory / "host")]
    with (
        closing(LocalPort(lambda: ("127.0.0.1", server), 0)) as port,
        subprocess.Popen(argv, stdout=subprocess.PIPE) as bare,
    ):
        assert bare.stdout
        ours = keys.directory / "ours"
        ours.write_text(client.entry(keys, "127.0.0.1", port.port))
        theirs = keys.directory / "theirs"
        theirs.write_text(client.entry(keys, "127.0.0.1", int(bare.stdout.readline())))
        took = medians(
            {
                name: program(client.command(config, keys.session, ["true"]))
                for name, config in {"ours": ours, "bare": theirs}.items()
            },
            ROUNDS,
        )
        bare.kill()
    return at_most("ssh to a session: over a bare asyncssh server", took["ours"] - took["bare"], "s", 0.05)
