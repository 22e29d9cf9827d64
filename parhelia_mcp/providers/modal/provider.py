"""The Modal provider: start, adopt, open, list."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from parhelia_mcp import model
from parhelia_mcp.errors import NotFound, Problem, Refused, Unreachable
from parhelia_mcp.providers.base import DEADLINE, Handle, Listed, Properties, Rates, SandboxSpec
from parhelia_mcp.providers.modal import bridge, image
from parhelia_mcp.providers.modal.sandbox import MOUNT, ModalSandbox
from parhelia_mcp.providers.modal.settings import ALIASES, GPUS, LONGEST_HOURS, ModalSettings, keys_of

NAME = "modal"
SSH_PORT = 2222
CREDENTIAL = "PARHELIA_CREDENTIAL"  # the runner's credential, as JSON, in a secret of its own
OWNER_TAG = "owner"
CREATED_TAG = "created"  # seconds since 1970; Modal knows it too, its SDK does not say
TAGS_AT_ONCE = 16
RATES_SOURCE = "Modal's own rates for this workspace (modal billing rates)"
GPU_RATE = "gpu_hour_cost_"
BILLED_AS = {"A10G": "A10", "RTX6000": "RTX-PRO-6000"}  # where the rate's name is not the name that asks for the GPU


class Modal:
    """Sandboxes on Modal. One object may be used from many threads."""

    def __init__(self, settings: ModalSettings) -> None:
        self.settings = settings
        self.properties = Properties(
            name=NAME,
            local_disk=False,
            gpus=GPUS,
            regions=True,
            max_lifetime_hours=settings.longest_hours,
            own_uid=True,
            bills=True,
        )
        self._lock = threading.Lock()
        self._starting: dict[str, tuple[Future[str], float]] = {}
        self._building: set[str] = set()  # the sandboxes whose image Modal is making
        self._app: Any = None

    def start(self, spec: SandboxSpec, *, deadline: float = DEADLINE) -> Handle:
        """As the contract says. What takes longer than the deadline goes on, and the next call picks it up.

        Raises Unreachable `provider-pending` for that: a GPU may take 21 minutes to come, a first image build some.
        """
        _check(spec)
        with self._lock:
            work, since = self._starting.get(spec.name) or (bridge.begin(lambda: self._create(spec)), time.monotonic())
            self._starting[spec.name] = (work, since)
        try:
            sandbox_id = bridge.wait(work, deadline, "start the sandbox", cancel=False)
        except Unreachable as problem:
            if work.done():
                self._starting.pop(spec.name, None)
                raise
            raise _pending(spec, time.monotonic() - since, spec.name in self._building) from problem
        except Problem:
            self._starting.pop(spec.name, None)
            raise
        self._starting.pop(spec.name, None)
        return self._handle(spec.name, sandbox_id)

    def open(self, handle: Handle) -> ModalSandbox:
        return ModalSandbox(self, handle.data["sandbox_id"], handle.name, handle.data["volume"])

    def list(self, owner: str, *, deadline: float = DEADLINE) -> list[Listed]:
        return bridge.call(lambda: self._list(owner), deadline, "list the sandboxes")

    def withdraw(self, name: str, *, deadline: float = DEADLINE) -> str | None:
        with self._lock:
            under_way = self._starting.pop(name, None)
        if under_way:
            under_way[0].cancel()

        async def find() -> tuple[str, str | None] | None:
            import modal

            settings = self.settings
            try:
                found = await modal.Sandbox.from_name.aio(settings.app, name, environment_name=settings.environment)
                return found.object_id, _created(await found.get_tags.aio()) if await self._ran(name) else None
            except modal.exception.NotFoundError:
                return None

        found = bridge.call(find, deadline, "look for the sandbox")
        if found is None:
            return None
        self.open(self._handle(name, found[0])).terminate(deadline=deadline)
        return found[1]

    def discard(self, image: str, *, deadline: float = DEADLINE) -> None:
        async def delete() -> None:
            import modal
            from modal.experimental import image_delete

            with contextlib.suppress(modal.exception.NotFoundError):
                await image_delete.aio(image)

        bridge.call(delete, deadline, "delete a snapshot")

    def rates(self, *, deadline: float = DEADLINE) -> Rates | None:
        """`Workspace.billing.rates` (RPC WorkspaceBillingRates): its rates of sandboxes, which are not those of functions.

        It has no multipliers of regions; those stay our table's.
        """

        async def ask() -> Rates | None:
            import modal

            said = dict(await modal.Workspace.from_context().billing.rates.aio())
            hourly = {key: float(rate) for key, rate in said.items() if rate.is_finite() and rate > 0}
            gpu = {_gpu_of(key): rate for key, rate in hourly.items() if key.startswith(GPU_RATE)}
            cpu, memory = hourly.get("cpu_hour_cost_sandbox"), hourly.get("mem_gib_hour_cost_sandbox")
            return Rates(RATES_SOURCE, cpu, memory, gpu) if cpu or memory or gpu else None

        return bridge.call(ask, deadline, "say its prices")

    def _handle(self, name: str, sandbox_id: str) -> Handle:
        return Handle(NAME, name, {"sandbox_id": sandbox_id, "volume": self.settings.volume})

    async def app(self) -> Any:
        """The app that holds our sandboxes, made on first use."""
        if self._app is None:
            self._app = await self.find_app(make=True)
        return self._app

    async def find_app(self, *, make: bool = False) -> Any:
        import modal

        settings = self.settings
        return await modal.App.lookup.aio(settings.app, environment_name=settings.environment, create_if_missing=make)

    def volume(self, name: str, *, make: bool = True) -> Any:
        import modal

        return modal.Volume.from_name(
            name, environment_name=self.settings.environment, create_if_missing=make, version=2
        )

    async def _create(self, spec: SandboxSpec) -> str:
        """The id of the sandbox that has the name, created where there is none. Looking first covers a lost reply."""
        import modal

        app = await self.app()
        if found := await self._existing(spec):
            return found.object_id
        self._building.add(spec.name)
        try:
            built = await self._image(spec, app)
        finally:
            self._building.discard(spec.name)
        secrets = [await self.secret(entry) for entry in (*self.settings.secrets, *spec.secrets)]
        if spec.credential:
            secrets.append(modal.Secret.from_dict({CREDENTIAL: json.dumps(dict(spec.credential))}))
        try:
            made = await modal.Sandbox.create.aio(
                *_entrypoint(spec, self.settings),
                app=app,
                name=spec.name,
                tags={**spec.tags, CREATED_TAG: str(int(time.time()))},
                image=built,
                secrets=secrets,
                timeout=int(spec.timeout_s),
                workdir=image.WORKSPACE,
                volumes={str(_task_dir(spec.name)): self._task_volume(spec.name)},
                unencrypted_ports=[SSH_PORT],
                **_placement(spec, self.settings),
            )
        except bridge.raisable():
            # the sandbox may exist all the same: the name was taken a moment ago, or the answer was lost
            made = await self._existing(spec)
            if made is None:
                raise
        return made.object_id

    async def _image(self, spec: SandboxSpec, app: Any) -> Any:
        """The snapshot that is asked for, else the image of the settings. Raises NotFound `snapshot-gone`."""
        import modal

        if spec.image is None:
            return await image.build(self.settings).build.aio(app)
        try:
            return await image.of_snapshot(spec.image).build.aio(app)
        except modal.exception.NotFoundError as raised:
            what = f"Modal no longer has the snapshot {spec.image}: {raised}"
            raise NotFound("snapshot-gone", f"{what}.", "parhelia resume ID, which goes on without it") from raised

    async def _existing(self, spec: SandboxSpec) -> Any:
        """The sandbox that has the name, alive or dead; None where there is none, or one that never got a machine.

        Only a sandbox with a GPU waits for one: this waits with it, and the SDK ends what waits when its process ends.
        """
        import modal

        try:
            found = await modal.Sandbox.from_name.aio(
                self.settings.app, spec.name, environment_name=self.settings.environment, include_terminated=True
            )
        except modal.exception.NotFoundError:
            return None
        if spec.sizes.gpu:
            if await found.poll.aio() is None:
                await (await found.exec.aio("true")).wait.aio()
            elif not await self._ran(spec.name):
                return None
        return found

    async def _ran(self, name: str) -> bool:
        """Whether a runner of this session ever left a trace."""
        import modal

        task, number = model.split_session(name)
        try:
            return bool(await self.volume(self.settings.volume).listdir.aio(f"tasks/{task}/sessions/{number}"))
        except (modal.exception.NotFoundError, FileNotFoundError):
            return False

    async def secret(self, entry: str) -> Any:
        """The secret `NAME` or `NAME:KEY,KEY`. Raises Refused `secret-missing`, also where a key is."""
        import modal

        name, wanted = entry.partition(":")[0], keys_of(entry)
        secret = modal.Secret.from_name(name, environment_name=self.settings.environment, required_keys=wanted)
        try:
            await secret.hydrate.aio()
        except modal.exception.NotFoundError as raised:
            hint = f"modal secret create {name} {' '.join(f'{key}=...' for key in wanted) or 'KEY=VALUE'}"
            raise Refused("secret-missing", f"Modal has no such secret, or not its keys: {raised}.", hint) from raised
        return secret

    def _task_volume(self, name: str) -> Any:
        task, _ = model.split_session(name)
        return self.volume(self.settings.volume).with_mount_options(sub_path=f"tasks/{task}")

    async def _list(self, owner: str) -> list[Listed]:
        """Every page; the tags, which the SDK drops, are asked for each."""
        import modal

        app = await self.app()
        running: AsyncIterator[Any] = modal.Sandbox.list.aio(app_id=app.app_id, tags={OWNER_TAG: owner})
        few = asyncio.Semaphore(TAGS_AT_ONCE)

        async def listed(sandbox: Any) -> Listed | None:
            async with few:
                try:
                    tags = await sandbox.get_tags.aio()
                except modal.exception.NotFoundError:
                    return None  # it ended since
            return Listed(self._handle(tags.get("session", ""), sandbox.object_id), tags, _created(tags))

        found = await asyncio.gather(*[listed(sandbox) async for sandbox in running])
        return [one for one in found if one]


def _gpu_of(key: str) -> str:
    """The name that `--gpu` takes for what a rate is called, e.g. `gpu_hour_cost_a100_80gb`."""
    name = key.removeprefix(GPU_RATE).upper().replace("_", "-")
    return BILLED_AS.get(name, name)


def _check(spec: SandboxSpec) -> None:
    """Refuse what can never work before anything is asked."""
    gpu = (spec.sizes.gpu or "").partition(":")[0].upper()
    if gpu and gpu not in GPUS:
        raise Refused("gpu-unavailable", f"Modal has no GPU {spec.sizes.gpu!r}.", f"--gpu {' | '.join(GPUS)}")
    if not 0 < spec.timeout_s <= LONGEST_HOURS * 3600:
        raise Refused(
            "timeout-too-long",
            f"A Modal sandbox lives {LONGEST_HOURS:g} hours at most; {spec.timeout_s / 3600:g} were asked for.",
            f"--timeout-hours {LONGEST_HOURS:g}",
        )


def _created(tags: Mapping[str, str]) -> str | None:
    """When it was asked for, as our own tag says."""
    seconds = tags.get(CREATED_TAG, "")
    return model.timestamp(datetime.fromtimestamp(int(seconds), UTC)) if seconds.isdigit() else None


def _pending(spec: SandboxSpec, waited: float, building: bool) -> Unreachable:
    if building:
        what = f"Modal builds the image, {waited:.0f} s so far (the first takes minutes, then it is kept); it goes on"
        return Unreachable("provider-pending", f"{what}.", "parhelia status")
    if spec.sizes.gpu:
        what = f"Modal has had no {spec.sizes.gpu} for {waited:.0f} s; it is still being asked for, nothing runs yet"
        return Unreachable("provider-pending", f"{what}.", "wait, or another --gpu or --region")
    what = f"Modal has not started the sandbox after {waited:.0f} s; it goes on"
    return Unreachable("provider-pending", f"{what}.", "parhelia status")


def _task_dir(name: str) -> PurePosixPath:
    return MOUNT / model.split_session(name)[0]


def _entrypoint(spec: SandboxSpec, settings: ModalSettings) -> list[str]:
    task_dir, number = _task_dir(spec.name), model.split_session(spec.name)[1]
    words = [image.PYTHON, "-m", "parhelia_mcp.inside", str(task_dir), str(number), "--workspace", image.WORKSPACE]
    agent = ["--user", image.USER, "--home", image.USER_HOME, "--lifetime", str(spec.timeout_s)]
    seen = ["--pass-env", ",".join(keys)] if (keys := settings.variables()) else []
    return [*words, *agent, *seen, "--credential-env", "--ssh-port", str(SSH_PORT)]


def _placement(spec: SandboxSpec, settings: ModalSettings) -> dict[str, Any]:
    """Sizes as (request, limit), both the same: what is reserved is what can be used and what is paid."""
    memory = int(spec.sizes.memory_gb * 1024)
    placement: dict[str, Any] = {"cpu": (spec.sizes.cpu, spec.sizes.cpu), "memory": (memory, memory)}
    if spec.sizes.gpu:
        model_name, colon, count = spec.sizes.gpu.upper().partition(":")
        placement["gpu"] = ALIASES.get(model_name, model_name) + colon + count
    if spec.region:
        placement["region"] = spec.region
    if settings.cloud:
        placement["cloud"] = settings.cloud
    return placement
