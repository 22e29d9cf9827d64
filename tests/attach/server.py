"""A session's ssh server as the runner starts it, and the real OpenSSH clients against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from parhelia_mcp.ssh import client
from parhelia_mcp.ssh.keys import Keys, make

SESSION = "task-0a1b2c3d.1"
MARK = ("PARHELIA_SESSION", SESSION)


class Server:
    """The server process of one session. `port` is fixed once it listens."""

    def __init__(self, home: Path, keys: Keys, workspace: Path, **changed: object) -> None:
        self.keys, self.workspace, self.home = keys, workspace, home
        private = keys.for_sandbox()
        config = {
            "user": client.USER,
            "host_key": private["PARHELIA_SSH_HOST_KEY"],
            "client_key": private["PARHELIA_SSH_CLIENT_KEY"],
            "cwd": str(workspace),
            "env": {"PATH": os.environ["PATH"], "HOME": str(workspace), MARK[0]: MARK[1]},
            "shell": ["/bin/bash"],
            "session": SESSION,
            **changed,
        }
        self.log = home / "ssh.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "parhelia_mcp.inside.ssh_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("ab"),
            env={"PATH": os.environ["PATH"]},
        )
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(config).encode() + b"\n")
        self.process.stdin.flush()
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.config = client.configure(keys, "127.0.0.1", self.port)

    def ssh(self, *remote: str, options: Sequence[str] = (), **how: object) -> subprocess.CompletedProcess[bytes]:
        argv = client.command(self.config, self.keys.session, remote)
        return run([argv[0], *options, *argv[1:]], **how)

    def tool(self, name: str, *arguments: str, **how: object) -> subprocess.CompletedProcess[bytes]:
        """scp or sftp with the session's configuration."""
        return run([name, "-q", "-F", str(self.config), *arguments], **how)

    @property
    def host(self) -> str:
        return client.aliases(self.keys.session)[0]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def run(argv: Sequence[str], **how: object) -> subprocess.CompletedProcess[bytes]:
    how = {"stdin": subprocess.DEVNULL, **how} if "input" not in how else how
    return subprocess.run(argv, capture_output=True, timeout=30, check=False, **how)


def start(tmp: Path, **changed: object) -> Server:
    workspace = tmp / "workspace"
    workspace.mkdir(exist_ok=True)
    return Server(tmp, make(tmp, SESSION), workspace, **changed)
