"""The agent that is a command: its exact argv, exit code and bytes."""

from __future__ import annotations

import codecs
import os
import signal
from collections.abc import Callable

import anyio
import anyio.abc

from parhelia_mcp import processes
from parhelia_mcp.errors import Refused
from parhelia_mcp.inside.agent import End, Room
from parhelia_mcp.model import Reason

DRAIN_S = 2.0  # for what is still in the pipes of a command that has ended but whose children hold them open
_SHOWN = 16 << 10  # bytes of output shown at a time; a flood is not read along


class Command:
    def __init__(self, room: Room) -> None:
        self._room = room
        self._argv = room.spec.command or ()
        self._pid: int | None = None

    async def run(self) -> End:
        """Run the command to its end. A signal that ended it is 128 + its number, as in a shell."""
        room = self._room
        try:
            process = await room.spawn(self._argv)
        except FileNotFoundError:
            return self._unstartable(127, "not found")
        except (PermissionError, OSError) as problem:
            return self._unstartable(126, f"cannot be run ({problem.strerror})")
        self._pid = room.agent["pid"] = process.pid
        room.emit("agent-started", f"command started: {shown(self._argv)}", pid=process.pid, command=list(self._argv))
        room.phase("running")
        assert process.stdout is not None and process.stderr is not None
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_leftovers, process.pid)
            async with anyio.create_task_group() as pumps:
                pumps.start_soon(self._pump, process.stdout, room.stdout)
                pumps.start_soon(self._pump, process.stderr, room.stderr)
            group.cancel_scope.cancel()
        code = await process.wait()
        room.resting = lambda: code >= 0
        return self._judged(code if code >= 0 else 128 - code)

    def _judged(self, code: int) -> End:
        if code == 0:
            return End(True, 0, None, "the command ended with exit code 0")
        cause = f" ({signal.Signals(code - 128).name})" if code - 128 in set(signal.Signals) else ""
        return End(False, code, Reason.AGENT_EXIT, f"the command ended with exit code {code}{cause}")

    async def _pump(self, stream: anyio.abc.ByteReceiveStream, write: Callable[[bytes], None]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        async for data in stream:
            write(data)
            gap = f"\n... {len(data) - _SHOWN} bytes ...\n" if len(data) > _SHOWN else ""
            self._room.view(gap + decoder.decode(data[-_SHOWN:]))

    async def _end_leftovers(self, pid: int) -> None:
        """When the command has ended, give what it left behind a moment to write, then end it: the pipes close."""
        await exited(pid)
        await anyio.sleep(DRAIN_S)
        left = self._room.left()
        self._room.emit("warning", f"the command left processes behind that hold its output; {len(left)} are ended")
        await anyio.to_thread.run_sync(self._room.end_left)

    def _unstartable(self, code: int, why: str) -> End:
        what = shown(self._argv[:1])
        self._room.stderr(f"parhelia: {what}: {why}\n".encode())
        return End(False, code, Reason.AGENT_ERROR, f"{what}: {why}, exit code {code}")

    async def send(self, text: str, id: str) -> None:
        raise Refused("not-an-agent", "This session runs a command; it takes no messages.", "parhelia attach ID")

    async def answer(self, allow: bool, text: str | None) -> None:
        raise Refused("not-waiting", "This session runs a command; it asks nothing.", "parhelia status ID")

    async def take_over(self, now: bool) -> None:
        raise Refused("not-an-agent", "This session runs a command; there is no conversation.", "parhelia attach ID")

    async def interrupt(self) -> None:
        """SIGTERM to the command and everything it started."""
        if self._pid is not None:
            processes.send(self._room.left(), signal.SIGTERM)


async def exited(pid: int) -> None:
    """Wait until child `pid` has ended, whoever holds its pipes."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def shown(argv: tuple[str, ...]) -> str:
    """The command as a person reads it, at most a line."""
    text = " ".join(part if part.isprintable() and part and " " not in part else repr(part) for part in argv)
    return text if len(text) <= 200 else text[:200] + "..."


def make(room: Room) -> Command:
    return Command(room)
