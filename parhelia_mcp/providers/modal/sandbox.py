"""One sandbox on Modal: read and written by exec while it lives, read from the volume when it is dead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from parhelia_mcp import files, model
from parhelia_mcp.errors import Busy, LocalFault, NotFound, Problem, Refused, Unreachable
from parhelia_mcp.providers.base import DEADLINE, Completed, Exit, ignore
from parhelia_mcp.providers.modal import bridge, image

if TYPE_CHECKING:
    from parhelia_mcp.providers.modal.provider import Modal

MOUNT = PurePosixPath("/parhelia/tasks")
REMOTE = "parhelia_mcp.inside.remote"
NO_FILE, OUTSIDE, SILENT, WHOLE = 44, 45, 46, -1  # the exit codes and the LIMIT of that program
GONE = Exit(None, "vanished")
PIECE = 1 << 20
BEGUN_S = 30.0  # within which a program has begun; the SDK waits for ever for a sandbox that is not placed
T = TypeVar("T")


class ModalSandbox:
    """Made by `Modal.open`; asks nobody until a method is called."""

    def __init__(self, provider: Modal, sandbox_id: str, name: str, volume: str) -> None:
        self._provider, self._id, self._volume = provider, sandbox_id, volume
        self._task = model.split_session(name)[0]
        self._number = model.split_session(name)[1]
        self.task_dir = MOUNT / self._task
        self.workspace = PurePosixPath(image.WORKSPACE)
        self._remote: Any = None
        self._exit: Exit | None = None

    # alive or dead

    def poll(self, *, deadline: float = DEADLINE) -> Exit | None:
        return bridge.call(self._poll, deadline, "say whether the sandbox runs")

    def terminate(self, *, deadline: float = DEADLINE) -> Exit:
        async def end() -> Exit:
            if (over := await self._poll()) is not None:
                return over
            import modal

            with contextlib.suppress(modal.exception.NotFoundError):
                await self._remote.terminate.aio()
            while (over := await self._poll()) is None:
                await asyncio.sleep(0.1)
            return over

        return bridge.call(end, deadline, "end the sandbox")

    async def _poll(self) -> Exit | None:
        import modal

        if self._exit is not None:
            return self._exit
        try:
            if self._remote is None:
                self._remote = await modal.Sandbox.from_id.aio(self._id)
                code = self._remote.returncode
            else:
                code = await self._remote.poll.aio()
            if code is not None:
                self._exit = Exit(code, await self._cause())
        except modal.exception.NotFoundError:
            self._exit = GONE
        return self._exit

    async def _cause(self) -> str:
        """The vendor's word for the end. Modal has none for memory: such an end is a code alone."""
        import modal

        try:
            await self._remote.wait.aio(raise_on_termination=True)
        except modal.exception.SandboxTimeoutError:
            return "timeout"
        except modal.exception.SandboxTerminatedError:
            return "terminated"
        return ""

    async def _living(self) -> Any:
        """The SDK's object of a running sandbox. Raises Unreachable `sandbox-ended`."""
        if (over := await self._poll()) is not None:
            cause = over.cause or f"exit code {over.code}"
            raise Unreachable("sandbox-ended", f"The sandbox has ended ({cause}).", "parhelia recover ID")
        return self._remote

    # programs

    def exec(self, argv: tuple[str, ...], *, stdin: bytes = b"", deadline: float = DEADLINE) -> Completed:
        async def run() -> Completed:
            pieces: list[bytes] = []
            code, stderr = await self._run(argv, _bytes(stdin), pieces.append, deadline)
            return Completed(code, b"".join(pieces), stderr)

        return bridge.call(run, deadline, f"run {argv[0]}")

    async def _run(
        self,
        argv: tuple[str, ...],
        stdin: AsyncIterator[bytes],
        stdout: Callable[[bytes], Any],
        deadline: float,
    ) -> tuple[int, bytes]:
        """Run a program; it does not outlive the deadline. Raises Unreachable, also where Modal forgets the program."""
        import modal

        try:
            return await self._ran(await self._living(), argv, stdin, stdout, deadline)
        except modal.exception.NotFoundError as raised:
            what = f"Modal has lost what was run in the sandbox: {raised}"
            raise Unreachable("program-lost", f"{what}.", "try again") from raised

    async def _ran(
        self,
        box: Any,
        argv: tuple[str, ...],
        stdin: AsyncIterator[bytes],
        stdout: Callable[[bytes], Any],
        deadline: float,
    ) -> tuple[int, bytes]:
        async with asyncio.timeout(min(deadline, BEGUN_S)):
            process = await box.exec.aio(*argv, text=False, timeout=max(1, int(deadline) + 1))

        async def feed() -> None:
            async for piece in stdin:
                process.stdin.write(piece)
                await process.stdin.drain.aio()
            process.stdin.write_eof()
            await process.stdin.drain.aio()

        async def collect() -> None:
            async for piece in process.stdout:
                stdout(piece)

        _, _, stderr = await asyncio.gather(feed(), collect(), process.stderr.read.aio())
        return await process.wait.aio(), stderr

    async def _ask(
        self, operation: str, *words: str, stdin: AsyncIterator[bytes], stdout: Callable[[bytes], Any], deadline: float
    ) -> int:
        """One operation of `parhelia_mcp.inside.remote`; returns its code."""
        argv = (image.PYTHON, "-m", REMOTE, operation, str(self.task_dir), *words)
        code, stderr = await self._run(argv, stdin, stdout, deadline)
        if code == OUTSIDE:
            raise _outside(words[0])
        if code not in (0, NO_FILE, SILENT):
            text = stderr.decode(errors="replace").strip()[-500:]
            raise Unreachable("sandbox-fault", f"The sandbox could not {operation}: {text}.", "parhelia logs ID")
        return code

    def control(self, request: Mapping[str, Any], *, deadline: float = DEADLINE) -> Mapping[str, Any]:
        async def ask() -> Mapping[str, Any]:
            answer: list[bytes] = []
            line = json.dumps(dict(request)).encode() + b"\n"
            code = await self._ask(
                "control", str(self._number), stdin=_bytes(line), stdout=answer.append, deadline=deadline
            )
            if code == SILENT:
                raise Unreachable("no-answer", "The runner does not answer.", "parhelia recover ID")
            return json.loads(b"".join(answer))

        return bridge.call(ask, deadline, "reach the runner")

    # files

    def put(
        self, path: str, source: bytes | Path, *, deadline: float = DEADLINE, seen: Callable[[int], None] = ignore
    ) -> None:
        inside = _inside(path)
        whole = isinstance(source, bytes)
        pieces, size = (_bytes(source), len(source)) if whole else (_pieces(source, seen), source.stat().st_size)

        async def write() -> None:
            await self._ask("write", inside, str(size), stdin=pieces, stdout=len, deadline=deadline)

        bridge.call(write, deadline, f"write {path}")

    def get(self, path: str, target: Path, *, deadline: float = DEADLINE) -> None:
        inside = _inside(path)
        draft = target.with_name(f".{target.name}.{os.urandom(4).hex()}")

        async def copy(sink: BinaryIO) -> None:
            async def live() -> int:
                sink.seek(0)
                sink.truncate()
                words = (inside, "0", str(WHOLE))
                return await self._ask("read", *words, stdin=_bytes(b""), stdout=sink.write, deadline=deadline)

            async def dead() -> int:
                sink.seek(0)
                sink.truncate()
                try:
                    async for piece in self._stored(inside):
                        sink.write(piece)
                except FileNotFoundError:
                    return NO_FILE
                return 0

            if await self._either(live, dead) == NO_FILE:
                raise NotFound("no-such-file", f"The session has no file {path}.", "parhelia logs ID")

        files.private_dir(target.parent)
        try:
            with draft.open("xb") as sink:
                os.fchmod(sink.fileno(), 0o600)
                bridge.call(lambda: copy(sink), deadline, f"read {path}")
            draft.replace(target)
        except OSError as problem:
            raise LocalFault("unwritable-file", f"{target}: {problem.strerror}.", "parhelia doctor") from problem
        finally:
            draft.unlink(missing_ok=True)

    def read(self, path: str, offset: int = 0, limit: int = 1 << 20, *, deadline: float = DEADLINE) -> bytes:
        inside = _inside(path)

        async def live() -> bytes:
            pieces: list[bytes] = []
            words = (inside, str(offset), str(limit))
            await self._ask("read", *words, stdin=_bytes(b""), stdout=pieces.append, deadline=deadline)
            return b"".join(pieces)

        async def dead() -> bytes:
            found, skip = bytearray(), offset
            with contextlib.suppress(FileNotFoundError):
                async with contextlib.aclosing(self._stored(inside)) as pieces:
                    async for piece in pieces:
                        found += piece[skip:]
                        skip = max(0, skip - len(piece))
                        if len(found) >= limit:
                            break
            return bytes(found[:limit])

        return bridge.call(lambda: self._either(live, dead), deadline, f"read {path}")

    def names(self, path: str, *, deadline: float = DEADLINE) -> list[str]:
        inside = _inside(path)

        async def live() -> list[str]:
            pieces: list[bytes] = []
            await self._ask("names", inside, stdin=_bytes(b""), stdout=pieces.append, deadline=deadline)
            return json.loads(b"".join(pieces))

        async def dead() -> list[str]:
            import modal

            folder = str(PurePosixPath("tasks", self._task, inside))
            try:
                entries = await self._provider.volume(self._volume).listdir.aio(folder)
            except (modal.exception.NotFoundError, FileNotFoundError):
                return []
            return sorted(PurePosixPath(entry.path).name for entry in entries if entry.path.strip("/") != folder)

        return bridge.call(lambda: self._either(live, dead), deadline, f"list {path}")

    def remove(self, path: str, *, deadline: float = DEADLINE) -> None:
        inside = _inside(path)

        async def take() -> None:
            if await self._poll() is None:
                what = f"The sandbox of {self._task} still writes there; nothing was removed."
                raise Busy("session-lives", what, f"parhelia session kill {self._task}, or wait for its end")
            with contextlib.suppress(FileNotFoundError):
                await self._provider.volume(self._volume).remove_file.aio(f"tasks/{self._task}/{inside}")

        bridge.call(take, deadline, f"remove {path}")

    async def _either(self, live: Callable[[], Awaitable[T]], dead: Callable[[], Awaitable[T]]) -> T:
        """Ask the sandbox while it runs, the volume when it does not, also when it ends under the question."""
        if await self._poll() is None:
            try:
                return await live()
            except (Problem, *bridge.raisable()):
                if await self._poll() is None:
                    raise
        return await dead()

    async def _stored(self, path: str) -> AsyncIterator[bytes]:
        """The file as the volume has it. Raises FileNotFoundError."""
        async for piece in self._provider.volume(self._volume).read_file.aio(f"tasks/{self._task}/{path}"):
            yield piece

    def snapshot(self, ttl_s: int, *, deadline: float = DEADLINE) -> str:
        """An image of its file system; the volume and our mounted source are not in it."""

        async def keep() -> str:
            box = await self._living()
            return (await box.snapshot_filesystem.aio(timeout=int(deadline), ttl=ttl_s)).object_id

        return bridge.call(keep, deadline, "take a snapshot")

    # network

    def tunnel(self, port: int, *, deadline: float = DEADLINE) -> tuple[str, int]:
        async def ask() -> tuple[str, int]:
            box = await self._living()
            tunnels = await box.tunnels.aio(timeout=max(1, int(deadline)))
            if port not in tunnels:
                known = ", ".join(str(one) for one in tunnels) or "none"
                raise Unreachable("no-tunnel", f"The sandbox has no tunnel to port {port} (has: {known}).", "")
            return tunnels[port].tcp_socket

        return bridge.call(ask, deadline, f"open a way to port {port}")

    # money

    def cost(self, *, deadline: float = DEADLINE) -> float | None:
        """Modal's estimate at the workspace's rates; `Sandbox._experimental_stats` (RPC SandboxGetStats), minutes late."""

        async def ask() -> float | None:
            import modal

            try:
                stats = await (await modal.Sandbox.from_id.aio(self._id))._experimental_stats.aio()
            except modal.exception.NotFoundError:
                return None
            return None if stats.cost is None else float(stats.cost)

        return bridge.call(ask, deadline, "say what the sandbox cost")


def _inside(path: str) -> str:
    """`path` as it may be asked for: relative, and never up."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise _outside(path)
    return str(pure)


def _outside(path: str) -> Problem:
    return Refused("path-outside", f"{path[:200]!r} leads out of the task's directory.", "a path below it")


async def _bytes(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def _pieces(source: Path, seen: Callable[[int], None]) -> AsyncIterator[bytes]:
    with source.open("rb") as stream:
        while piece := stream.read(PIECE):
            yield piece
            seen(stream.tell())
