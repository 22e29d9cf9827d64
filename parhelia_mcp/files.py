"""Small durable things on disk: private files, whole-file replacement, append-only lines, reading by offset."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parhelia_mcp.errors import LocalFault


def private_dir(path: Path) -> Path:
    """Make `path` and its missing parents, mode 0700; an existing directory keeps its mode."""
    missing = []
    probe = path
    while not probe.exists():
        missing.append(probe)
        probe = probe.parent
    for part in reversed(missing):
        part.mkdir(mode=0o700, exist_ok=True)
    return path


def replace(path: Path, data: bytes, *, durable: bool = False, mode: int = 0o600) -> None:
    """Make `path` hold exactly `data`, or leave it as it was; readers never see a half.

    `durable` also waits until the data and the name are on the disk.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync_dir(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however the kernel splits it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_dir(path: Path) -> None:
    """Wait until the names in directory `path` are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """`replace` with `value` as one JSON document."""
    replace(path, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n", durable=durable)


def read_json(path: Path) -> Any:
    """The JSON document in `path`, or None where there is no such file.

    Raises LocalFault `unreadable-file` for anything that is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise LocalFault("unreadable-file", f"{path} is not JSON ({problem}).", f"rm {path}") from None


def read_at(path: Path, offset: int, limit: int) -> bytes:
    """Up to `limit` bytes of `path` from `offset`; empty at the end or where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, limit, offset)
    finally:
        os.close(descriptor)


def whole_lines(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each complete line of `data` without its newline, with the offset just past it; a torn last line is left out."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end], end + 1
        start = end + 1
