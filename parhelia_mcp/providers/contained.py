"""Files below a root that somebody else writes in: no symlink is followed, nothing outside is reached."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from parhelia_mcp import files
from parhelia_mcp.errors import NotFound, Refused
from parhelia_mcp.providers.base import ignore

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def _parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise Refused(
            "path-outside", f"{path[:200]!r} is not a path inside the task's directory.", "give a relative path"
        )
    return parts


@contextmanager
def _folder(root: Path, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
    """The descriptor of the directory `parts` below `root`. Raises Refused for a symlink on the way."""
    current = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
            try:
                below = os.open(part, _DIRECTORY, dir_fd=current)
            except NotADirectoryError:
                raise Refused("path-outside", f"{part!r} below {root} is not a directory.", f"ls -l {root}") from None
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


@contextmanager
def opened(root: Path, path: str) -> Iterator[int]:
    """The descriptor of the regular file `path` below `root`. Raises FileNotFoundError, or Refused for anything else."""
    *folder, name = _parts(path)
    with _folder(root, tuple(folder)) as parent:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            raise
        except OSError as problem:
            raise Refused("path-outside", f"{path}: {problem.strerror}.", f"ls -l {root / path}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused("path-outside", f"{path} is not a regular file.", f"ls -l {root / path}")
        yield descriptor
    finally:
        os.close(descriptor)


def put(root: Path, path: str, source: bytes | Path, seen: Callable[[int], None] = ignore) -> None:
    """Make `path` below `root` hold the bytes, whole or not at all; parents are made."""
    *folder, name = _parts(path)
    draft = f".{name}.{os.urandom(5).hex()}"
    with _folder(root, tuple(folder), make=True) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(draft, flags, 0o600, dir_fd=parent)
        try:
            with os.fdopen(target, "wb", closefd=True) as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as given:
                        _copy(given.fileno(), file.fileno(), seen)
            os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=parent)
            raise


def get(root: Path, path: str, target: Path) -> None:
    """Copy the file `path` below `root` to `target`, whole or not at all. Raises NotFound."""
    draft = target.with_name(f".{target.name}.{os.urandom(5).hex()}")
    try:
        with opened(root, path) as source, draft.open("xb") as file:
            _copy(source, file.fileno())
        draft.chmod(0o600)
        draft.replace(target)
    except FileNotFoundError:
        raise NotFound("no-such-file", f"There is no {path} in {root}.", f"ls {root}") from None
    finally:
        draft.unlink(missing_ok=True)


def read(root: Path, path: str, offset: int, limit: int) -> bytes:
    """Up to `limit` bytes from `offset`; empty at the end or where there is no such file."""
    try:
        with opened(root, path) as descriptor:
            return os.pread(descriptor, limit, offset)
    except FileNotFoundError:
        return b""


def names(root: Path, path: str) -> list[str]:
    """The names in directory `path`, sorted; empty where there is none."""
    try:
        with _folder(root, _parts(path) if path not in ("", ".") else ()) as descriptor:
            return sorted(os.listdir(descriptor))  # noqa: PTH208 -- of a descriptor
    except FileNotFoundError:
        return []


def remove(root: Path, path: str) -> None:
    """See that the file is gone."""
    parts = _parts(path)
    with suppress(FileNotFoundError), _folder(root, parts[:-1]) as descriptor:
        os.unlink(parts[-1], dir_fd=descriptor)


def _copy(source: int, target: int, seen: Callable[[int], None] = ignore) -> None:
    offset = 0
    while data := os.pread(source, _CHUNK, offset):
        files.write_all(target, data)
        offset += len(data)
        seen(offset)
