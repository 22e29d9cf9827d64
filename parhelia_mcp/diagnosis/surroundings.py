"""What lies around a session on this machine: its ssh port, port 2222, the disk of our own files, the hooks."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.providers.base import Sandbox
from parhelia_mcp.ssh import keys
from parhelia_mcp.store import Session

SSH = 2222  # what a sandbox's ssh port is called, and the port `attach` opens here
BANNER_S = 2.0


def machine(ctx: Context) -> dict[str, Any]:
    return {"home_free_mb": shutil.disk_usage(ctx.home).free >> 20, "checkpoints_mb": _size(ctx.home) >> 20}


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("tasks/*/checkpoints/packs/*"))


def hooks(ctx: Context) -> dict[str, Any]:
    """The first thing that keeps a hook from acting as written."""
    from parhelia_mcp.hook_validator import HookValidator

    report = HookValidator(home=ctx.user_home, project=ctx.cwd, environ=ctx.environ).validate()
    errors = [finding for finding in report.findings if finding.severity == "error"]
    return {"hooks_broken": f"{errors[0].file}: {errors[0].what} Fix: {errors[0].fix}" if errors else None}


def ssh(ctx: Context, session: Session, sandbox: Sandbox) -> dict[str, Any]:
    """How the session's ssh server answers: with the key made for it, with another, with a refusal, a cut or nothing."""
    try:
        where = sandbox.tunnel(SSH, deadline=BANNER_S)
        with socket.create_connection(where, BANNER_S) as line:
            line.settimeout(BANNER_S)
            answers = line.recv(16).startswith(b"SSH-")
    except ConnectionRefusedError:
        return {"ssh": "refused"}
    except ConnectionResetError:
        return {"ssh": "reset"}
    except TimeoutError:
        return {"ssh": "silent"}
    except Problem as problem:
        if problem.code == "no-tunnel":
            return {"ssh": "refused"}
        raise
    return {"ssh": _whose(ctx, session, where) if answers else "reset"}


def _whose(ctx: Context, session: Session, where: tuple[str, int]) -> str:
    """Whether what answers has the host key that was made for this session; unasked where ssh-keyscan is missing."""
    pinned = keys.of(ctx.home, session.id)
    program = shutil.which("ssh-keyscan", path=ctx.environ.get("PATH"))
    if pinned is None or program is None:
        return "answers"
    argv = [program, "-T", str(int(BANNER_S)), "-t", "ed25519", "-p", str(where[1]), where[0]]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=2 * BANNER_S, check=False).stdout
    shown = {row.split()[2] for row in said.splitlines() if len(row.split()) == 3}
    return "other key" if shown and pinned.host_public.split()[1] not in shown else "answers"


def own_port() -> dict[str, Any]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", SSH))
        except OSError as problem:
            if problem.errno in (errno.EADDRINUSE, errno.EACCES):
                return {"port_2222": "taken"}
            raise
    return {"port_2222": "free"}
