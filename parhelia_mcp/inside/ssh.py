"""The ssh server's life beside the agent: started once there is a workspace, and again whenever it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc

from parhelia_mcp.inside.agent import Room
from parhelia_mcp.processes import MARKER

HOST_KEY, CLIENT_KEY = "PARHELIA_SSH_HOST_KEY", "PARHELIA_SSH_CLIENT_KEY"  # names on the credential channel
USER = "parhelia"  # the only user name it knows; who that is, is the runner's business
READY_S = 20.0
_PAUSES = (0.5, 1.0, 2.0, 5.0, 15.0)  # before it is started again
_STEADY_S = 60.0  # a server that lived this long was well


async def keep(room: Room, port: int, told: Callable[[Mapping[str, Any]], None]) -> None:
    """Keep the server of a session running until cancelled; `told` gets what state.json says of it.

    With a `port` it listens there on every address, for a sandbox with a network of its own; with 0 it takes any free
    one of 127.0.0.1, and the same one again after a fall. Without keys there is no server.
    """
    if not room.credential.get(HOST_KEY) or not room.credential.get(CLIENT_KEY):
        return
    host, again = ("0.0.0.0", port) if port else ("127.0.0.1", 0)
    falls = 0
    while True:
        began = time.monotonic()
        try:
            process = await _start(room)
        except OSError as problem:
            room.emit("warning", f"warning: no ssh server, so nobody can attach: {problem}")
            return
        try:
            if ready := await _ready(process, _configuration(room, host, again)):
                again = ready["port"]
                told(ready)
            await process.wait()
        finally:
            await _end(process)
        told({})
        falls = 0 if time.monotonic() - began > _STEADY_S else falls + 1
        if falls > 2 and not port:
            again = 0  # somebody else has taken it
        room.emit("warning", f"the ssh server ended with code {process.returncode}; it is started again")
        await anyio.sleep(_PAUSES[min(falls, len(_PAUSES)) - 1] if falls else _PAUSES[0])


async def _start(room: Room) -> anyio.abc.Process:
    kept = ("PATH", "PYTHONPATH", "LANG")
    with (room.session_dir / "ssh.log").open("ab") as log:
        return await anyio.open_process(
            [
                sys.executable,
                "-P",
                "-m",
                "parhelia_mcp.inside.ssh_server",
            ],  # -P: nothing is imported from where it starts
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={name: os.environ[name] for name in kept if name in os.environ},
            cwd="/",
            start_new_session=True,
        )


async def _end(process: anyio.abc.Process) -> None:
    """Leave neither the process nor a zombie, also when we are cancelled."""
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.aclose()


def _configuration(room: Room, host: str, port: int) -> bytes:
    shell = room.env.get("SHELL") or "/bin/sh"
    session = room.spec.session
    config = {
        "user": USER,
        "host_key": room.credential[HOST_KEY],
        "client_key": room.credential[CLIENT_KEY],
        "cwd": str(room.workspace),
        "env": {**room.env, MARKER: session},
        "shell": [shell, "-l"],
        "session": session,
        "host": host,
        "port": port,
        **({"uid": room.owner.uid, "gid": room.owner.gid} if room.owner else {}),
    }
    return json.dumps(config).encode() + b"\n"


async def _ready(process: anyio.abc.Process, configuration: bytes) -> dict[str, Any] | None:
    """What the server says once it listens, or None where it ended or kept silent."""
    assert process.stdin is not None and process.stdout is not None
    said = b""
    try:
        await process.stdin.send(configuration)
        with anyio.fail_after(READY_S):
            while not said.endswith(b"\n"):
                said += await process.stdout.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return None
    except TimeoutError:
        process.kill()
        return None
    return json.loads(said)
