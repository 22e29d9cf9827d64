"""One program behind one ssh channel: started, fed, drained to the last byte, its exit told to the client.

The pumps are our own: asyncssh's redirection loses the end of what is piped in and breaks on large output.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

_CHUNK = 65536
_LAST_WORDS_S = 1.0  # how long a terminal may go on after its program has ended: a background job can keep it open
_TERMINFO = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/local/share/terminfo")


@dataclass(frozen=True, slots=True)
class Child:
    """A started program: where its input goes and where its outputs come from."""

    process: asyncio.subprocess.Process
    stdin: io.FileIO
    outputs: tuple[tuple[io.FileIO, asyncssh.SSHWriter], ...]
    terminal: bool

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


async def serve(client: asyncssh.SSHServerProcess, shell: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
    """Run `shell`, or what the client asked for by it, and end the channel as the program ended."""
    argv = shell if client.command is None else (shell[0], "-c", client.command)
    told = {name: value for name, value in client.env.items() if name == "LANG" or name.startswith("LC_")}
    try:
        child = await _start(client, argv, cwd, {**env, **told})
    except OSError as problem:
        client.stderr.write(f"parhelia: {problem}\r\n".encode())
        client.exit(127 if isinstance(problem, FileNotFoundError) else 126)
        return
    gone = asyncio.create_task(client.channel.wait_closed())
    feed = asyncio.create_task(_pump_in(client, child))
    flow = asyncio.gather(*(_pump_out(source.fileno(), writer) for source, writer in child.outputs))
    died = asyncio.create_task(child.process.wait())
    try:
        await asyncio.wait({died, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():  # output first, then the status
            limit = _LAST_WORDS_S if child.terminal else None
            await asyncio.wait({flow, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            _tell(client, died.result())
    finally:
        for task in (feed, flow, gone):
            task.cancel()
        await asyncio.gather(feed, flow, gone, return_exceptions=True)
        for end in (child.stdin, *(source for source, _ in child.outputs)):
            end.close()
        child.signal(signal.SIGHUP)


def _tell(client: asyncssh.SSHServerProcess, code: int) -> None:
    if code >= 0:
        client.exit(code)
    else:
        client.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))


async def _start(client: asyncssh.SSHServerProcess, argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> Child:
    if client.term_type is not None:
        return await _start_on_terminal(client, argv, cwd, env)
    pipes = [os.pipe() for _ in range(3)]
    (in_read, in_write), (out_read, out_write), (err_read, err_write) = pipes
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=in_read, stdout=out_write, stderr=err_write, env=env, cwd=cwd, start_new_session=True
        )
    except OSError:
        for descriptor in (in_write, out_read, err_read):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (in_read, out_write, err_write):
            os.close(descriptor)
    outputs = ((_end(out_read, "r"), client.stdout), (_end(err_read, "r"), client.stderr))
    return Child(process, _end(in_write, "w"), outputs, terminal=False)


async def _start_on_terminal(
    client: asyncssh.SSHServerProcess, argv: Sequence[str], cwd: str, env: Mapping[str, str]
) -> Child:
    master, slave = pty.openpty()
    try:
        _resize(master, *client.term_size)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": _known_terminal(client.term_type or "")},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
    except OSError:
        os.close(master)
        raise
    finally:
        os.close(slave)
    both = _end(master, "r+")
    return Child(process, both, ((both, client.stdout),), terminal=True)


def _end(descriptor: int, mode: str) -> io.FileIO:
    """Our end of a pipe or terminal as an object: closing it twice cannot hit a descriptor used again."""
    os.set_blocking(descriptor, False)
    return io.FileIO(descriptor, mode)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _resize(master: int, width: int, height: int, *_pixels: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))


def _known_terminal(name: str) -> str:
    """`name` where this machine can drive such a terminal, else the one that every image can."""
    folders = (name[:1], f"{ord(name[0]):x}") if name else ()
    if "/" not in name and any(Path(root, folder, name).exists() for root in _TERMINFO for folder in folders):
        return name
    return "xterm-256color"


async def _ready(add: Callable[..., None], remove: Callable[[int], bool], descriptor: int) -> None:
    done = asyncio.get_running_loop().create_future()
    add(descriptor, lambda: done.done() or done.set_result(None))
    try:
        await done
    finally:
        remove(descriptor)


async def _pump_out(descriptor: int, out: asyncssh.SSHWriter) -> None:
    """Move output to the client, no faster than it takes it, until the program's end closes it."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            await _ready(loop.add_reader, loop.remove_reader, descriptor)
            continue
        except OSError:  # EIO: nobody has the terminal open any more
            return
        if not data:
            return
        try:
            out.write(data)
            await out.drain()
        except (asyncssh.Error, OSError):  # the client has gone
            return


async def _pump_in(client: asyncssh.SSHServerProcess, child: Child) -> None:
    """Move what the client types to the program, with the resizes and signals between the bytes."""
    with suppress(OSError, asyncssh.Error):  # the program no longer reads, or the client has gone
        while data := await _typed(client, child):
            await _write(child.stdin.fileno(), data)
    if not child.terminal:  # nobody at a terminal typed the end: a lost line must not end the shell in its window
        child.stdin.close()


async def _typed(client: asyncssh.SSHServerProcess, child: Child) -> bytes:
    while True:
        try:
            return await client.stdin.read(_CHUNK)
        except asyncssh.TerminalSizeChanged as change:
            if child.terminal:
                _resize(child.stdin.fileno(), change.width, change.height)
        except asyncssh.SignalReceived as sent:
            child.signal(getattr(signal, f"SIG{sent.signal}", signal.SIGTERM))
        except asyncssh.BreakReceived:
            child.signal(signal.SIGINT)


async def _write(descriptor: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await _ready(loop.add_writer, loop.remove_writer, descriptor)
