"""RPCs about everything but sandboxes: accounts, apps, images, mounts, secrets, volumes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_loopback import kept
from tests.modal_loopback.world import World, new_id, token

BLOCK = 8 << 20
_CREATES = {
    api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING,
    api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP,
    api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL,
}
_DONE = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
_UNBUILT = api_pb2.GenericResult(
    status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE, exception="a command of the image ended in a failure"
)


class Objects:
    def __init__(self, world: World) -> None:
        self.world = world

    async def AuthTokenGet(self, _request: api_pb2.AuthTokenGetRequest) -> api_pb2.AuthTokenGetResponse:
        return api_pb2.AuthTokenGetResponse(token=token())

    async def ClientHello(self, _request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse()

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        metadata = api_pb2.EnvironmentMetadata(name=request.deployment_name or "main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-main", metadata=metadata)

    async def WorkspaceNameLookup(self, _request: Empty) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(username="loopback", workspace_name="loopback")

    async def WorkspaceBillingRates(
        self, _request: api_pb2.WorkspaceBillingRatesRequest
    ) -> api_pb2.WorkspaceBillingRatesResponse:
        return api_pb2.WorkspaceBillingRatesResponse(rates=self.world.rates)

    async def AppGetOrCreate(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        app_id = self.world.apps.get(request.app_name)
        if app_id is None:
            if request.object_creation_type not in _CREATES:
                raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment 'main'")
            app_id = self.world.apps[request.app_name] = new_id("ap")
            kept.save(self.world)
        return api_pb2.AppGetOrCreateResponse(app_id=app_id)

    # images: a definition means "this machine's own files"; one that runs `exit N` cannot be built

    async def ImageGetOrCreate(self, request: api_pb2.ImageGetOrCreateRequest) -> api_pb2.ImageGetOrCreateResponse:
        digest = hashlib.sha256(request.image.SerializeToString(deterministic=True)).hexdigest()
        image_id = "im-" + digest[:22]
        if any(command.startswith("RUN exit ") for command in request.image.dockerfile_commands):
            return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=_UNBUILT)
        if image_id not in self.world.images:
            self.world.images.add(image_id)
            kept.save(self.world)
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=_DONE)

    async def ImageFromId(self, request: api_pb2.ImageFromIdRequest) -> api_pb2.ImageFromIdResponse:
        if not self.world.has_image(request.image_id):
            raise GRPCError(Status.NOT_FOUND, f"Image {request.image_id} not found")
        return api_pb2.ImageFromIdResponse(image_id=request.image_id)

    async def ImageDelete(self, request: api_pb2.ImageDeleteRequest) -> Empty:
        self.world.images.discard(request.image_id)
        self.world.snapshots.pop(request.image_id, None)
        kept.save(self.world)
        return Empty()

    async def MountBatchedCheckExistence(
        self, _request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        return api_pb2.MountBatchedCheckExistenceResponse()

    async def MountPutFile(self, _request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        return api_pb2.MountPutFileResponse(exists=True)

    async def MountGetOrCreate(self, request: api_pb2.MountGetOrCreateRequest) -> api_pb2.MountGetOrCreateResponse:
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=digest)
        return api_pb2.MountGetOrCreateResponse(mount_id="mo-" + digest[:22], handle_metadata=metadata)

    async def SecretGetOrCreate(self, request: api_pb2.SecretGetOrCreateRequest) -> api_pb2.SecretGetOrCreateResponse:
        secret_id = self.world.secret_names.get(request.deployment_name)
        if secret_id is None:
            if request.object_creation_type not in _CREATES:
                raise GRPCError(Status.NOT_FOUND, f"Secret '{request.deployment_name}' not found in environment 'main'")
            secret_id = new_id("st")
            self.world.secrets[secret_id] = dict(request.env_dict)
            kept.save(self.world)
        missing = sorted(set(request.required_keys) - set(self.world.secrets[secret_id]))
        if missing:
            text = f"Secret '{request.deployment_name}' is missing key(s): {', '.join(missing)}"
            raise GRPCError(Status.NOT_FOUND, text)
        metadata = api_pb2.SecretMetadata(name=request.deployment_name)
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret_id, metadata=metadata)

    async def VolumeGetOrCreate(self, request: api_pb2.VolumeGetOrCreateRequest) -> api_pb2.VolumeGetOrCreateResponse:
        volume_id = self.world.volume_names.get(request.deployment_name)
        if volume_id is None:
            if request.object_creation_type not in _CREATES:
                raise GRPCError(Status.NOT_FOUND, f"Volume '{request.deployment_name}' not found in environment 'main'")
            volume_id = self.world.volume_names[request.deployment_name] = new_id("vo")
            self.world.volumes[volume_id] = self.world.state / "volumes" / volume_id
            self.world.volumes[volume_id].mkdir(parents=True)
            kept.save(self.world)
        version = api_pb2.VOLUME_FS_VERSION_V2
        metadata = api_pb2.VolumeMetadata(version=version, name=request.deployment_name)
        return api_pb2.VolumeGetOrCreateResponse(volume_id=volume_id, version=version, metadata=metadata)

    def _in_volume(self, volume_id: str, path: str) -> Path:
        return self.world.volumes[volume_id] / path.lstrip("/")

    async def VolumeGetFile2(self, request: api_pb2.VolumeGetFile2Request) -> api_pb2.VolumeGetFile2Response:
        path = self._in_volume(request.volume_id, request.path)
        if not path.is_file():
            raise GRPCError(Status.NOT_FOUND, f"{request.path}: no such file")
        size = path.stat().st_size
        length = min(request.len or size, size - request.start)
        relative = os.fsencode(path.relative_to(self.world.state)).hex()
        starts = range(request.start, request.start + length, BLOCK)
        ends = [min(start + BLOCK, request.start + length) for start in starts]
        urls = [f"{self.world.blob_url}/block/{relative}/{a}/{b}" for a, b in zip(starts, ends, strict=True)]
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=size, start=request.start, len=length)

    async def VolumeListFiles2(
        self, request: api_pb2.VolumeListFiles2Request
    ) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        folder = self._in_volume(request.volume_id, request.path)
        if not folder.exists():
            raise GRPCError(Status.NOT_FOUND, f"{request.path}: no such file or directory")
        found = sorted(folder.rglob("*") if request.recursive else folder.iterdir()) if folder.is_dir() else [folder]
        entries = []
        for path in found:
            kind = api_pb2.FileEntry.DIRECTORY if path.is_dir() else api_pb2.FileEntry.FILE
            status = path.lstat()
            name = str(path.relative_to(self.world.volumes[request.volume_id]))
            entries.append(api_pb2.FileEntry(path=name, type=kind, mtime=int(status.st_mtime), size=status.st_size))
        yield api_pb2.VolumeListFiles2Response(entries=entries)

    async def VolumeRemoveFile2(self, request: api_pb2.VolumeRemoveFile2Request) -> Empty:
        self._in_volume(request.volume_id, request.path).unlink(missing_ok=True)
        return Empty()
