"""A directory without git: an archive in, and an archive of what changed out, held together by hashes of the base."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.errors import Corrupted, Refused

_RESULT = "result.json"


def write(source: Path, path: Path) -> tuple[int, str]:
    """Put everything in `source` but sockets, fifos and devices into a tar; returns its files and its digest."""
    known = manifest(source)
    path.touch(mode=0o600)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name in known:
            _add(tar, source / name, name)
    return sum(not entry.startswith("dir") for entry in known.values()), digest(known)


def extract(path: Path, target: Path, *, expected: str | None) -> None:
    """Fill `target` from the archive and note beside it what it was; raises Corrupted unless it is what was packed."""
    with tarfile.open(path, errors="surrogateescape") as tar:
        tar.extractall(target, filter="fully_trusted")
    known = manifest(target)
    if expected != digest(known):
        raise Corrupted("bad-workspace", f"{path.name} does not hold the workspace that was sent.", "")
    files.replace(_base(target), json.dumps(known).encode())


def collect(target: Path, bundle: Path) -> tuple[str, int, int] | None:
    """Write what differs from the base into `bundle`; its digest, changed files and bytes, or None where nothing does."""
    now = manifest(target)
    base = json.loads(_base(target).read_bytes()) if _base(target).exists() else {}
    changed = [name for name, entry in now.items() if base.get(name) != entry]
    deleted = [name for name in base if name not in now]
    if not changed and not deleted:
        return None
    about = {
        "base": {name: base[name] for name in [*changed, *deleted] if name in base},
        "now": {name: now[name] for name in changed},
        "deleted": deleted,
    }
    draft = bundle.with_name(f".{bundle.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        text = json.dumps(about).encode()
        header = tarfile.TarInfo(_RESULT)
        header.size = len(text)
        tar.addfile(header, io.BytesIO(text))
        for name in changed:
            _add(tar, target / name, f"files/{name}")
    draft.replace(bundle)
    return (
        digest(now),
        sum(not now.get(name, "").startswith("dir") for name in [*changed, *deleted]),
        bundle.stat().st_size,
    )


def changes(bundle: Path) -> dict[str, Any]:
    """What a result archive says it changed; raises Refused `bad-result` for anything else."""
    try:
        with tarfile.open(bundle, errors="surrogateescape") as tar:
            first = tar.next()
            if first is None or first.name != _RESULT or first.size > 256 << 20 or not (told := tar.extractfile(first)):
                raise ValueError("no result in it")
            about = json.loads(told.read())
            names = [*about["now"], *about["deleted"], *about["base"]]
            if not all(isinstance(text, str) for text in [*names, *about["now"].values(), *about["base"].values()]):
                raise ValueError("odd names in it")
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Refused("bad-result", f"{bundle} is not a result archive ({problem}).", "") from None
    for name in names:
        parts = PurePosixPath(name).parts
        inside = all(about["now"].get(str(parent), "dir").startswith("dir") for parent in PurePosixPath(name).parents)
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or (name in about["now"] and not inside):
            raise Refused("bad-result", f"The result names {name[:80]!r}, which is outside the workspace.", "")
    return about


def apply(source: Path, bundle: Path) -> list[str]:
    """Bring the result into `source`: all of it, or none where the user changed the same files (Refused `conflicts`)."""
    about = changes(bundle)
    touched = [*about["now"], *about["deleted"]]
    clashing = [name for name in touched if not _free(source, name, about)]
    if clashing:
        shown = ", ".join(clashing[:20])
        raise Refused(
            "conflicts",
            f"{len(clashing)} files changed here and in the session: {shown}. Nothing was touched.",
            "move them away, or take files from the result",
        )
    with tempfile.TemporaryDirectory(prefix=".parhelia.", dir=source) as folder:
        with tarfile.open(bundle, errors="surrogateescape") as tar:
            drafts = {name: Path(folder) / str(number) for number, name in enumerate(about["now"])}
            for name, entry in about["now"].items():
                _draft(tar, name, entry, drafts[name])
        _move(source, drafts, about)
    return touched


def _draft(tar: tarfile.TarFile, name: str, entry: str, draft: Path) -> None:
    """Make `draft` what `entry` says; content comes from the archive, and has to have the hash in `entry`."""
    kind, _, rest = entry.partition(" ")
    if kind == "link":
        draft.symlink_to(rest)
    elif kind == "file":
        try:
            content = tar.extractfile(f"files/{name}")
        except (KeyError, tarfile.TarError):
            content = None
        if content:
            with draft.open("wb") as file:
                shutil.copyfileobj(content, file)
            draft.chmod(int(rest.partition(" ")[0], 8) & 0o777)
        if _entry(draft) != entry:
            raise Refused("bad-result", f"The result does not hold {name[:80]!r} as it says. Nothing was touched.", "")


def _free(source: Path, name: str, about: dict[str, Any]) -> bool:
    """Whether what is at `name` is what was sent, or what comes, and nothing else of the user's is in the way."""
    for parent in PurePosixPath(name).parents:
        path = source / parent
        if path.is_symlink() or (path.exists() and not path.is_dir() and str(parent) not in about["deleted"]):
            return str(parent) in about["now"] and _free(source, str(parent), about)
    path, comes = source / name, about["now"].get(name, "dir")
    if path.is_dir() and not path.is_symlink() and not comes.startswith("dir"):
        inner = [str(below.relative_to(source)) for below in path.rglob("*")]
        return name in about["base"] and all(below in about["deleted"] for below in inner)
    return _entry(path) in (about["base"].get(name), about["now"].get(name))


def _move(source: Path, drafts: Mapping[str, Path], about: dict[str, Any]) -> None:
    for name in sorted(about["deleted"], reverse=True):
        path = source / name
        if about["base"][name].startswith("dir"):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    for name, entry in sorted(about["now"].items()):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.startswith("dir"):
            if not path.is_dir() or path.is_symlink():
                path.unlink(missing_ok=True)
            path.mkdir(exist_ok=True)
            path.chmod(int(entry.split()[1], 8) & 0o777)
        else:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            drafts[name].replace(path)


def manifest(top: Path) -> dict[str, str]:
    """Every file, link and directory below `top` by its relative name: kind, mode, and hash or target."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            entry = _entry(path)
            if entry:
                found[str(path.relative_to(top))] = entry
    return found


def _entry(path: Path) -> str | None:
    """What is at `path`, in one comparable line; None for nothing and for what does not travel."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    if stat.S_ISLNK(status.st_mode):
        return f"link {path.readlink()}"
    if stat.S_ISDIR(status.st_mode):
        return f"dir {mode}"
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        with path.open("rb") as content:
            return f"file {mode} {hashlib.file_digest(content, 'sha256').hexdigest()}"
    except PermissionError:
        raise Refused("unreadable-files", f"{path} cannot be read.", f"chmod u+r {path}") from None


def digest(known: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(known.items())).encode()).hexdigest()


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    tar.inodes = {}  # a hard link travels as a file of its own
    header = tar.gettarinfo(path, name)
    header.uid = header.gid = 0
    header.uname = header.gname = ""
    if header.isreg():
        with path.open("rb") as content:
            tar.addfile(header, content)
    else:
        tar.addfile(header)


def _base(target: Path) -> Path:
    return target.with_name(f".{target.name}.base.json")
