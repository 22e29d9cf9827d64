"""RPCs about sandboxes, for both generations: V2, and V1 (anything with a GPU)."""

from __future__ import annotations

import asyncio
import string
import time

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_loopback import kept
from tests.modal_loopback.boxes import Box, Plan, relay
from tests.modal_loopback.world import Result, Sandbox, World, new_id, token

PAGE = 25
GPUS = {"T4", "L4", "A10", "L40S", "A100", "A100-40GB", "A100-80GB", "H100", "H200", "B200"}
_NOTHING = api_pb2.Sandbox()
_ULID = string.digits + string.ascii_uppercase


class Sandboxes:
    def __init__(self, world: World, box: type[Box]) -> None:
        self.world = world
        self.box = box
        self.relays: dict[tuple[str, int], asyncio.Server] = {}
        self.lines: set[asyncio.StreamWriter] = set()  # through tunnels
        self._background: set[asyncio.Task[None]] = set()

    # create

    async def SandboxCreateV2(self, request: api_pb2.SandboxCreateV2Request) -> api_pb2.SandboxCreateV2Response:
        env: dict[str, str] = {}
        for source in request.secret_sources:
            env |= self._secret(source.secret_id) if source.secret_id else dict(source.env.contents)
        sandbox = self._new(request, new_id("sb", 26, _ULID), new_id("ta", 25, _ULID) + "V", env)
        await asyncio.shield(self._later(self._place(sandbox)))  # one who hangs up gets a whole sandbox all the same
        access = api_pb2.CommandRouterAccess(url=self.world.url, jwt=token())
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=sandbox.id, task_id=sandbox.task_id, command_router_access=access
        )

    async def SandboxCreate(self, request: api_pb2.SandboxCreateRequest) -> api_pb2.SandboxCreateResponse:
        gpu = request.definition.resources.gpu_config.gpu_type
        if gpu and gpu not in GPUS:
            raise GRPCError(Status.INVALID_ARGUMENT, f"Unknown GPU type: {gpu}")
        env: dict[str, str] = {}
        for secret_id in request.definition.secret_ids:
            env |= self._secret(secret_id)
        sandbox = self._new(request, new_id("sb"), new_id("ta"), env)
        kept.save_sandbox(self.world, sandbox)
        self._later(self._schedule(sandbox))
        return api_pb2.SandboxCreateResponse(sandbox_id=sandbox.id)

    def _secret(self, secret_id: str) -> dict[str, str]:
        if secret_id not in self.world.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret {secret_id} not found")
        return self.world.secrets[secret_id]

    def _new(
        self,
        request: api_pb2.SandboxCreateV2Request | api_pb2.SandboxCreateRequest,
        sandbox_id: str,
        task_id: str,
        env: dict[str, str],
    ) -> Sandbox:
        name = request.definition.name
        if name and self.world.by_name(request.app_id, name):
            raise GRPCError(Status.ALREADY_EXISTS, f"Sandbox with name '{name}' already exists")
        image = request.definition.image_id
        if not self.world.has_image(image):
            raise GRPCError(Status.NOT_FOUND, f"Image {image} not found")
        sandbox = Sandbox(
            id=sandbox_id,
            task_id=task_id,
            app_id=request.app_id,
            name=name,
            created_at=self.world.created_now(),
            definition=request.definition,
            env={**env, **dict(request.definition.environment_variables.contents)},
            tags={tag.tag_name: tag.tag_value for tag in request.tags},
        )
        self.world.sandboxes[sandbox.id] = sandbox
        return sandbox

    async def _schedule(self, sandbox: Sandbox) -> None:
        await self.world.machines.wait()
        if sandbox.result is None:
            await self._place(sandbox)

    async def _place(self, sandbox: Sandbox) -> None:
        plan = self._plan(sandbox)
        plan.folder.mkdir(parents=True, exist_ok=True)
        sandbox.box = await self.box.start(plan)
        kept.save_sandbox(self.world, sandbox)
        self._later(self._watch(sandbox, sandbox.box))

    def find_again(self) -> None:
        """Take up the sandboxes of the server before this one: those that run, and those that wait for a machine."""
        for sandbox in self.world.sandboxes.values():
            if sandbox.result is None and sandbox.found is None:
                self._later(self._schedule(sandbox))
            elif sandbox.found is not None:
                sandbox.box = self.box.found(self._plan(sandbox), sandbox.found)
                self._later(self._watch(sandbox, sandbox.box))

    def _plan(self, sandbox: Sandbox) -> Plan:
        mounts = {}
        for mount in sandbox.definition.volume_mounts:
            mounts[mount.mount_path] = self.world.volumes[mount.volume_id] / mount.sub_path.strip("/")
        return Plan(
            id=sandbox.id,
            folder=self.world.folder(sandbox.id),
            argv=tuple(sandbox.definition.entrypoint_args),
            env=sandbox.env,
            workdir=sandbox.definition.workdir,
            mounts=mounts,
            egress=tuple(self.world.egress),
            image=self.world.snapshot_folder(image)
            if (image := sandbox.definition.image_id) in self.world.snapshots
            else None,
        )

    async def _watch(self, sandbox: Sandbox, box: Box) -> None:
        left = sandbox.created_at + sandbox.definition.timeout_secs - time.time()
        try:
            code = await asyncio.wait_for(box.entry.process.wait(), left if sandbox.definition.timeout_secs else None)
        except TimeoutError:
            await self.end(sandbox, Result.GENERIC_STATUS_TIMEOUT, 124)
            return
        status = Result.GENERIC_STATUS_SUCCESS if code == 0 else Result.GENERIC_STATUS_FAILURE
        await self.end(sandbox, status, 128 - code if code < 0 else code)

    async def end(self, sandbox: Sandbox, status: Result.GenericStatus.ValueType, code: int) -> None:
        sandbox.end(status, code)
        for key in [key for key in self.relays if key[0] == sandbox.id]:
            self.relays.pop(key).close()
        if sandbox.box is not None:
            await asyncio.to_thread(sandbox.box.kill)
            await sandbox.box.entry.process.wait()
            kept.save_sandbox(self.world, sandbox)

    def _later(self, work: object) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # look

    async def SandboxGetTaskId(self, request: api_pb2.SandboxGetTaskIdRequest) -> api_pb2.SandboxGetTaskIdResponse:
        sandbox = self.world.sandbox(request.sandbox_id)
        if sandbox.box is None:
            return api_pb2.SandboxGetTaskIdResponse(task_result=sandbox.result)
        return api_pb2.SandboxGetTaskIdResponse(task_id=sandbox.task_id)

    SandboxGetTaskIdV2 = SandboxGetTaskId

    async def SandboxGetCommandRouterAccess(
        self, request: api_pb2.SandboxGetCommandRouterAccessRequest
    ) -> api_pb2.SandboxGetCommandRouterAccessResponse:
        if self.world.sandbox(request.sandbox_id).result is not None:
            raise GRPCError(Status.FAILED_PRECONDITION, "Sandbox has finished")
        return api_pb2.SandboxGetCommandRouterAccessResponse(url=self.world.url, jwt=token())

    async def TaskGetCommandRouterAccess(
        self, request: api_pb2.TaskGetCommandRouterAccessRequest
    ) -> api_pb2.TaskGetCommandRouterAccessResponse:
        self.world.by_task(request.task_id)
        return api_pb2.TaskGetCommandRouterAccessResponse(url=self.world.url, jwt=token())

    async def SandboxWait(self, request: api_pb2.SandboxWaitRequest) -> api_pb2.SandboxWaitResponse:
        sandbox = self.world.sandbox(request.sandbox_id)
        if request.timeout > 0 and sandbox.result is None:
            try:
                await asyncio.wait_for(sandbox.over.wait(), request.timeout)
            except TimeoutError:
                return api_pb2.SandboxWaitResponse()
        return api_pb2.SandboxWaitResponse(result=sandbox.result)

    SandboxWaitV2 = SandboxWait

    async def SandboxGetFromNameV2(
        self, request: api_pb2.SandboxGetFromNameRequest
    ) -> api_pb2.SandboxGetFromNameResponse:
        app_id = self.world.apps.get(request.app_name, "")
        sandbox = self.world.by_name(app_id, request.sandbox_name, request.include_terminated)
        if sandbox is None:
            raise GRPCError(Status.NOT_FOUND, f"Sandbox with name '{request.sandbox_name}' not found")
        metadata = api_pb2.SandboxHandleMetadata(result=sandbox.result, app_id=sandbox.app_id)
        return api_pb2.SandboxGetFromNameResponse(sandbox_id=sandbox.id, metadata=metadata)

    SandboxGetFromName = SandboxGetFromNameV2

    async def SandboxListV2(self, request: api_pb2.SandboxListRequest) -> api_pb2.SandboxListResponse:
        wanted = {(tag.tag_name, tag.tag_value) for tag in request.tags}
        found = [
            one
            for one in self.world.sandboxes.values()
            if (one.result is None or request.include_finished)
            and not one.vanished
            and (not request.app_id or one.app_id == request.app_id)
            and wanted <= set(one.tags.items())
            and (not request.before_timestamp or one.created_at < request.before_timestamp)
        ]
        found.sort(key=lambda one: -one.created_at)
        return api_pb2.SandboxListResponse(sandboxes=[_info(one) for one in found[:PAGE]])

    async def SandboxTagsGet(self, request: api_pb2.SandboxTagsGetRequest) -> api_pb2.SandboxTagsGetResponse:
        return api_pb2.SandboxTagsGetResponse(tags=_tags(self.world.sandbox(request.sandbox_id)))

    SandboxTagsGetV2 = SandboxTagsGet

    async def SandboxTagsSet(self, request: api_pb2.SandboxTagsSetRequest) -> Empty:
        self.world.sandbox(request.sandbox_id).tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        kept.save_sandbox(self.world, self.world.sandbox(request.sandbox_id))
        return Empty()

    SandboxTagsSetV2 = SandboxTagsSet

    async def SandboxGetStats(self, request: api_pb2.SandboxGetStatsRequest) -> api_pb2.SandboxGetStatsResponse:
        """What was asked for, for as long as it lived, at the rates of the account."""
        sandbox = self.world.sandbox(request.sandbox_id)
        hours = ((sandbox.ended_at or time.time()) - sandbox.created_at) / 3600
        cpu = hours * sandbox.definition.resources.milli_cpu / 1000 * float(self.world.rates["cpu_hour_cost_sandbox"])
        gib = hours * sandbox.definition.resources.memory_mb / 1024
        memory = gib * float(self.world.rates["mem_gib_hour_cost_sandbox"])
        each = {"CPU": f"{cpu:.8f}", "Memory": f"{memory:.8f}"}
        return api_pb2.SandboxGetStatsResponse(
            cost=f"{cpu + memory:.8f}", cost_by_resource=each, num_datapoints=1, duration_hours=hours
        )

    # reach and end

    async def SandboxGetTunnels(self, request: api_pb2.SandboxGetTunnelsRequest) -> api_pb2.SandboxGetTunnelsResponse:
        sandbox = self.world.sandbox(request.sandbox_id)
        if sandbox.box is None or sandbox.result is not None:
            raise GRPCError(Status.FAILED_PRECONDITION, "Sandbox is not running")
        tunnels = []
        for spec in sandbox.definition.open_ports.ports:
            port = await self._relay(sandbox, sandbox.box, spec.port)
            tunnels.append(
                api_pb2.TunnelData(
                    host="127.0.0.1",
                    port=port,
                    unencrypted_host="127.0.0.1",
                    unencrypted_port=port,
                    container_port=spec.port,
                )
            )
        return api_pb2.SandboxGetTunnelsResponse(tunnels=tunnels)

    SandboxGetTunnelsV2 = SandboxGetTunnels

    async def _relay(self, sandbox: Sandbox, box: Box, port: int) -> int:
        key = (sandbox.id, port)
        if key not in self.relays:
            self.relays[key] = await asyncio.start_server(
                lambda reader, writer: self._carry(reader, writer, box, port), "127.0.0.1", 0
            )
        return self.relays[key].sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, box: Box, port: int) -> None:
        self.lines.add(writer)
        try:
            await relay(reader, writer, lambda: box.connect(port))
        finally:
            self.lines.discard(writer)

    def cut(self) -> None:
        """Break every line that goes through a tunnel."""
        for line in self.lines:
            line.transport.abort()

    async def SandboxTerminate(self, request: api_pb2.SandboxTerminateRequest) -> api_pb2.SandboxTerminateResponse:
        sandbox = self.world.sandbox(request.sandbox_id)
        before = sandbox.result
        await self.end(sandbox, Result.GENERIC_STATUS_TERMINATED, 137)
        return api_pb2.SandboxTerminateResponse(existing_result=before)

    SandboxTerminateV2 = SandboxTerminate

    async def vanish(self, name: str) -> None:
        """Lose a sandbox as a preempted machine does: its processes are gone and nobody remembers it."""
        for sandbox in self.world.sandboxes.values():
            if sandbox.name == name:
                await self.end(sandbox, Result.GENERIC_STATUS_INTERNAL_FAILURE, 1)
                sandbox.vanished = True
                kept.save_sandbox(self.world, sandbox)

    def crowd(self, owner: str, count: int) -> None:
        """Have that many running sandboxes that nobody asks for work: what a list of many meets."""
        app_id = next(iter(self.world.apps.values()))
        for number in range(count):
            name = f"task-{number:08d}.1"
            tags = {"owner": owner, "session": name}
            sandbox = Sandbox(new_id("sb"), new_id("ta"), app_id, name, self.world.created_now(), _NOTHING, {}, tags)
            self.world.sandboxes[sandbox.id] = sandbox

    async def close(self) -> None:
        for sandbox in self.world.sandboxes.values():
            await self.end(sandbox, Result.GENERIC_STATUS_TERMINATED, 137)


def _tags(sandbox: Sandbox) -> list[api_pb2.SandboxTag]:
    return [api_pb2.SandboxTag(tag_name=name, tag_value=value) for name, value in sandbox.tags.items()]


def _info(sandbox: Sandbox) -> api_pb2.SandboxInfo:
    return api_pb2.SandboxInfo(
        id=sandbox.id,
        created_at=sandbox.created_at,
        app_id=sandbox.app_id,
        tags=_tags(sandbox),
        name=sandbox.name,
        task_info=api_pb2.TaskInfo(id=sandbox.task_id, result=sandbox.result),
    )
