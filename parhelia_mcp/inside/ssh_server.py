"""The ssh server of one session: shell, commands, terminals, SFTP and the session's own ports, as the agent's user.

    python -m parhelia_mcp.inside.ssh_server

A child of the runner. It reads its configuration as one JSON line on stdin, so that no key is in its arguments, its
environment or a file; prints `{"port": N, "host_key": PUBLIC}` once it listens; and ends when stdin closes. Everything it needs is
imported and bound before it becomes the agent's user, who may be unable to read this package.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  imported late otherwise, after the change of user
import ctypes
import encodings.idna  # noqa: F401  the same
import json
import os
import resource
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

import asyncssh

from parhelia_mcp.inside import own_ports, ssh_process

TRIES = 6  # keys that a client may offer; asyncssh has no limit of its own
_PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Config:
    """What the runner says on stdin. Keys are text in OpenSSH's formats; without `uid` the user stays."""

    user: str
    host_key: str
    client_key: str
    cwd: str
    env: Mapping[str, str]
    shell: tuple[str, ...]
    session: str
    host: str = "127.0.0.1"
    port: int = 0
    uid: int | None = None
    gid: int | None = None


class Server(asyncssh.SSHServer):
    """One connection: one user, one key, and no port but the session's own."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = asyncssh.import_public_key(config.client_key).public_data
        self._tries = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._tries += 1
        if self._tries > TRIES:
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )
        return username == self._config.user and key.public_data == self._client

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Awaitable:
        return self._forward(dest_host, dest_port)

    async def _forward(self, host: str, port: int) -> asyncssh.SSHTCPSession:
        loopback = host in ("127.0.0.1", "localhost", "::1")
        if not loopback or not await asyncio.to_thread(own_ports.listening, self._config.session, port):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not a port of this session")
        return await self._connection.forward_connection(host, port)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:  # asyncssh drops the connection without a word of its own
            print(f"connection lost: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)  # noqa: T201


class Files(asyncssh.SFTPServer):
    """SFTP and scp whose relative paths begin at the workspace, wherever this process was started."""

    def __init__(self, channel: asyncssh.SSHServerChannel, cwd: str) -> None:
        super().__init__(channel)
        self._cwd = os.fsencode(cwd)

    def map_path(self, path: bytes) -> bytes:
        return os.path.join(self._cwd, path)  # noqa: PTH118  bytes, as the client sent them

    def exit(self) -> None:
        self.channel.exit(0)  # without it scp takes a whole copy for a failed one


async def listen(config: Config) -> asyncssh.SSHAcceptor:
    async def process(client: asyncssh.SSHServerProcess) -> None:
        await ssh_process.serve(client, config.shell, config.cwd, config.env)

    return await asyncssh.create_server(
        lambda: Server(config),
        config.host,
        config.port,
        server_host_keys=[asyncssh.import_private_key(config.host_key)],
        process_factory=process,
        encoding=None,
        line_editor=False,
        sftp_factory=lambda channel: Files(channel, config.cwd),
        allow_scp=True,
        agent_forwarding=False,
        x11_forwarding=False,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        login_timeout=20,
        keepalive_interval=15,
        keepalive_count_max=3,
        compression_algs=None,
        server_version="parhelia",
    )


def become(uid: int | None, gid: int | None) -> None:
    """Give up root where an agent's user is named, and let nobody read this process's memory."""
    if uid is not None and os.getuid() == 0:
        group = uid if gid is None else gid
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def serve(config: Config) -> None:
    """Serve until stdin closes: the runner has gone."""
    acceptor = await listen(config)
    become(config.uid, config.gid)
    public = asyncssh.import_private_key(config.host_key).export_public_key().decode().strip()
    print(json.dumps({"port": acceptor.get_port(), "host_key": public}), flush=True)  # noqa: T201
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: os.read(0, 4096) or gone.set())
    await gone.wait()


def main() -> None:
    line = sys.stdin.buffer.raw.readline()  # unbuffered: what follows the line is only ever its end
    raw = json.loads(line)
    asyncio.run(serve(Config(**{**raw, "shell": tuple(raw["shell"])})))


if __name__ == "__main__":
    main()
