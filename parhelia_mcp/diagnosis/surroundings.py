"""What lies around a session on this machine: its ssh port, port 2222, the disk of our own files, the hooks."""

from __future__ import annotations

import errno
import shutil
import socket
from pathlib import Path
from typing import Any

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.providers.base import Sandbox

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


def ssh(sandbox: Sandbox) -> dict[str, Any]:
    """How the session's ssh server answers: its banner, a refusal, a cut."""
    try:
        with socket.create_connection(sandbox.tunnel(SSH, deadline=BANNER_S), BANNER_S) as line:
            line.settimeout(BANNER_S)
            return {"ssh": "answers" if line.recv(16).startswith(b"SSH-") else "reset"}
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
