"""An ssh client for machines that have none: the same keys and checks as the system's, for a terminal only."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from parhelia_mcp.errors import Problem, Refused, Unreachable
from parhelia_mcp.ssh.client import CONNECT_S, CUT, USER
from parhelia_mcp.ssh.keys import Keys


def attach(keys: Keys, port: int, remote: str) -> int:
    """Run `remote` in the session behind `port` of this machine, on this terminal; returns its exit code.

    Raises the same problems as `client.failure` tells apart.
    """
    import asyncssh

    try:
        return asyncio.run(_attach(keys, port, remote))
    except asyncssh.HostKeyNotVerifiable:
        what = (
            f"What answers for {keys.session} does not have the host key that was made for it. Nothing was sent to it."
        )
        raise Refused("host-key-changed", what, f"parhelia recover {keys.session}") from None
    except asyncssh.PermissionDenied:
        what = f"{keys.session} does not accept this key: it belongs to another session, or was replaced."
        raise Refused("key-rejected", what, f"parhelia status {keys.session}") from None
    except ConnectionRefusedError:
        raise _away(keys, "ssh-refused", f"Nothing answers at the ssh port of {keys.session}.") from None
    except TimeoutError:
        raise _away(keys, "ssh-timeout", f"The ssh server of {keys.session} does not answer.") from None
    except (asyncssh.Error, OSError):
        what = f"The line to the ssh server of {keys.session} is closed before anything is said on it."
        raise _away(keys, "ssh-closed", what) from None


def _away(keys: Keys, code: str, what: str) -> Problem:
    return Unreachable(code, what, f"parhelia status {keys.session}")


async def _attach(keys: Keys, port: int, remote: str) -> int:
    import asyncssh

    async with asyncssh.connect(
        "127.0.0.1",
        port,
        username=USER,
        client_keys=[asyncssh.read_private_key(keys.client)],
        known_hosts=([asyncssh.import_public_key(keys.host_public)], [], []),
        server_host_key_algs=["ssh-ed25519"],
        preferred_auth="publickey",
        agent_path=None,
        config=None,
        connect_timeout=CONNECT_S,
        keepalive_interval=5,
        keepalive_count_max=3,
    ) as connection:
        try:
            return await _terminal(connection, remote)
        except (asyncssh.Error, OSError):
            what = f"The connection to {keys.session} was cut. The session goes on."
            raise Unreachable(CUT, what, f"parhelia attach {keys.session}") from None


async def _terminal(connection, remote: str) -> int:
    import asyncssh

    terminal, size = os.environ.get("TERM", "xterm-256color"), tuple(shutil.get_terminal_size())
    async with connection.create_process(remote, term_type=terminal, term_size=size, encoding=None) as process:
        with _raw(), _keys_to(process):
            while data := await process.stdout.read(65536):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        await process.wait()
        if process.exit_status is None:
            raise asyncssh.ConnectionLost("no exit status")
        return process.exit_status


@contextmanager
def _raw() -> Iterator[None]:
    """The terminal hands on every key, until the end puts it back as it was."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        with suppress(termios.error):  # there is no terminal any more
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _keys_to(process) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def typed() -> None:
        try:
            data = os.read(descriptor, 4096)
        except OSError:  # EIO: the terminal's window was closed
            data = b""
        if data:
            process.stdin.write(data)
        else:
            loop.remove_reader(descriptor)
            process.close()

    loop.add_reader(descriptor, typed)
    loop.add_signal_handler(signal.SIGWINCH, lambda: process.change_terminal_size(*shutil.get_terminal_size()))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        loop.remove_reader(descriptor)
