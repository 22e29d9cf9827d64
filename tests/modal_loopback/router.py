"""The worker's side: what the SDK asks of one running sandbox."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import task_command_router_pb2 as pb

from tests.modal_loopback import kept
from tests.modal_loopback.boxes import Process, copy
from tests.modal_loopback.world import Sandbox, World, new_id

CHUNK = 1 << 18
TICK = 0.01  # how often growing output is looked at


class Router:
    def __init__(self, world: World) -> None:
        self.world = world
        self.execs: dict[str, Process] = {}
        self._limits: set[asyncio.Task[None]] = set()

    def _exec(self, exec_id: str) -> Process:
        if exec_id not in self.execs:
            raise GRPCError(Status.NOT_FOUND, f"Exec {exec_id} not found")
        return self.execs[exec_id]

    async def TaskExecStart(self, request: pb.TaskExecStartRequest) -> pb.TaskExecStartResponse:
        if request.exec_id in self.execs:
            return pb.TaskExecStartResponse()
        sandbox = self.world.by_task(request.task_id)
        env: dict[str, str] = {}
        for source in request.secret_sources:
            env |= self.world.secrets[source.secret_id] if source.secret_id else dict(source.env.contents)
        try:
            process = await sandbox.box.run(list(request.command_args), env, request.workdir, request.exec_id)
        except OSError as problem:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{request.command_args[0]}: {problem.strerror}") from None
        self.execs[request.exec_id] = process
        if request.HasField("timeout_secs") and request.timeout_secs:
            task = asyncio.ensure_future(_limit(process, request.timeout_secs))
            self._limits.add(task)
            task.add_done_callback(self._limits.discard)
        return pb.TaskExecStartResponse()

    async def TaskExecStdioRead(
        self, request: pb.TaskExecStdioReadRequest
    ) -> AsyncIterator[pb.TaskExecStdioReadResponse]:
        process = self._exec(request.exec_id)
        path = process.stderr if request.file_descriptor else process.stdout
        async for data in _follow(process, path, request.offset):
            yield pb.TaskExecStdioReadResponse(data=data)

    async def TaskExecStdinWrite(self, request: pb.TaskExecStdinWriteRequest) -> pb.TaskExecStdinWriteResponse:
        process = self._exec(request.exec_id)
        await _feed(process, request.offset, request.data, request.eof)
        return pb.TaskExecStdinWriteResponse()

    async def TaskExecWait(self, request: pb.TaskExecWaitRequest) -> pb.TaskExecWaitResponse:
        process = self._exec(request.exec_id)
        code = await process.process.wait()
        return pb.TaskExecWaitResponse(signal=-code) if code < 0 else pb.TaskExecWaitResponse(code=code)

    async def TaskExecPoll(self, request: pb.TaskExecPollRequest) -> pb.TaskExecPollResponse:
        code = self._exec(request.exec_id).code
        if code is None:
            return pb.TaskExecPollResponse()
        return pb.TaskExecPollResponse(signal=-code) if code < 0 else pb.TaskExecPollResponse(code=code)

    async def SandboxStdioReadV2(
        self, request: pb.SandboxStdioReadV2Request
    ) -> AsyncIterator[pb.SandboxStdioReadV2Response]:
        entry = self._anytime(request.task_id).box.entry
        path = entry.stderr if request.file_descriptor == pb.SANDBOX_STDIO_FILE_DESCRIPTOR_STDERR else entry.stdout
        offset = request.offset
        async for data in _follow(entry, path, offset):
            yield pb.SandboxStdioReadV2Response(data=data, starting_offset=offset)
            offset += len(data)

    def _anytime(self, task_id: str) -> Sandbox:
        for sandbox in self.world.sandboxes.values():
            if sandbox.task_id == task_id and sandbox.box is not None:
                return sandbox
        raise GRPCError(Status.NOT_FOUND, f"Task {task_id} not found")

    async def TaskSnapshotFilesystem(
        self, request: pb.TaskSnapshotFilesystemRequest
    ) -> pb.TaskSnapshotFilesystemResponse:
        image_id = new_id("im")
        await copy(self.world.by_task(request.task_id).box.own, self.world.snapshot_folder(image_id))
        self.world.snapshots[image_id] = time.time() + request.ttl_seconds if request.ttl_seconds > 0 else math.inf
        kept.save(self.world)
        return pb.TaskSnapshotFilesystemResponse(image_id=image_id)

    async def TaskReloadVolumes(self, _request: pb.TaskReloadVolumesRequest) -> pb.TaskReloadVolumesResponse:
        return pb.TaskReloadVolumesResponse()


async def _limit(process: Process, seconds: float) -> None:
    try:
        await asyncio.wait_for(process.process.wait(), seconds)
    except TimeoutError:
        process.kill()


async def _feed(process: Process, offset: int, data: bytes, eof: bool) -> None:
    """Write what is new of `data`: the SDK repeats a write whose answer it missed."""
    async with process.input_lock:
        fresh = data[max(0, process.written - offset) :]
        stdin = process.process.stdin
        try:
            if fresh:
                stdin.write(fresh)
                await stdin.drain()
            if eof:
                stdin.close()
        except ConnectionError:
            pass  # the program does not read; its exit code tells
        process.written += len(fresh)


async def _follow(process: Process, path: Path, offset: int) -> AsyncIterator[bytes]:
    """The bytes of `path` from `offset`, as they come, until the program has ended."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while True:
            over = process.code is not None
            while data := os.pread(descriptor, CHUNK, offset):
                offset += len(data)
                yield data
            if over:
                return
            await asyncio.sleep(TICK)
    finally:
        os.close(descriptor)
