"""One file for a bug report: what is known of a task and of this installation, without secrets."""

from __future__ import annotations

import io
import json
import platform
import tarfile
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import __version__, credentials, faults, files, logbook
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import timestamp
from parhelia_mcp.redact import known, redact
from parhelia_mcp.verbs import config, doctor, recover, show, status
from parhelia_mcp.verbs import list as listing

LINES = 5_000
LONGEST = 8 << 20  # bytes of one file in the bundle
OURS = (
    "anyio",
    "asyncssh",
    "blake3",
    "click",
    "cryptography",
    "mcp",
    "modal",
    "pydantic",
    "rich",
    "tomli",
    "zstandard",
)


class Request(BaseModel, extra="forbid"):
    """Write a bundle for a bug report."""

    id: Annotated[str, Field(description="Task or session")]


class Result(BaseModel):
    task_id: str
    session_id: str
    path: str
    bytes: int
    files: list[str]
    note: str
    next: str


def run(ctx: Context, request: Request) -> Result:
    """Write it into the current directory, 0600. A part that cannot be had is in it as the error it gave."""
    session = ctx.store.find(request.id)
    parts: dict[str, Callable[[], Any]] = {
        "task.json": lambda: show.run(ctx, show.Request(id=session.id)).model_dump(mode="json"),
        "diagnosis.json": lambda: recover.run(ctx, recover.Request(id=session.id)).model_dump(mode="json"),
        "status.json": lambda: status.run(ctx, status.Request()).model_dump(mode="json"),
        "tasks.json": lambda: listing.run(ctx, listing.Request(limit=20)).model_dump(mode="json"),
        "doctor.json": lambda: doctor.run(ctx, doctor.Request()).model_dump(mode="json"),
        "config.json": lambda: config.run(ctx, config.Request()).model_dump(mode="json"),
        "versions.json": _versions,
        "logs.txt": lambda: _logs(ctx.session_dir(session.task, session.number)),
        "runner.log": lambda: _end_of(ctx.session_dir(session.task, session.number) / "runner.log"),
        "faults.log": lambda: faults.recent(ctx),
        "controller.log": lambda: _end_of(ctx.home / "controller.log"),
        "spec.json": lambda: files.read_json(ctx.task_dir(session.task) / "spec.json"),
    }
    secrets = known(ctx.environ, _credential(ctx))
    path = ctx.cwd / f"parhelia-report-{session.id}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    bundle = _bundle({name: redact(_text(make), secrets) for name, make in parts.items()}, str(ctx.user_home))
    files.replace(path, bundle)
    return Result(
        task_id=session.task,
        session_id=session.id,
        path=str(path),
        bytes=len(bundle),
        files=sorted(parts),
        note="keys and tokens are taken out; the prompt, the log and names of files are in it: read it before you send it",
        next=f"tar -xzOf {path.name} | less",
    )


def _text(make: Callable[[], Any]) -> str:
    try:
        value = make()
    except (Problem, OSError) as problem:
        value = {"error": str(problem)}
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _bundle(texts: dict[str, str], home: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in texts.items():
            data = (text.replace(home, "~") if len(home) > 1 else text).encode("utf-8", "replace")[-LONGEST:]
            entry = tarfile.TarInfo(f"parhelia-report/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _credential(ctx: Context) -> tuple[str, ...]:
    try:
        return tuple(credentials.resolve(ctx).values.values())
    except Problem:
        return ()


def _versions() -> dict[str, Any]:
    return {
        "parhelia": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "at": timestamp(),
        "packages": {one.name: one.version for one in distributions() if one.name.lower() in OURS},
    }


def _logs(folder: Path) -> str:
    begin = logbook.tail(folder, LINES)
    return "\n".join(f"{line.at} [{line.stream}] {line.text}" for line in logbook.forward(folder, begin, ended=True))


def _end_of(path: Path) -> str:
    if not path.exists():
        return ""
    return files.read_at(path, max(0, path.stat().st_size - (1 << 18)), 1 << 18).decode(errors="replace")
