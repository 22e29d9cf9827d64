"""Brings a part of a checkpoint back: into a directory of its own, every byte checked, then renamed into place."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parhelia_mcp import failpoint, files
from parhelia_mcp.checkpoint import format as form
from parhelia_mcp.checkpoint import trees
from parhelia_mcp.checkpoint.faults import damaged, local_faults
from parhelia_mcp.checkpoint.format import Entry
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.packs import Reader
from parhelia_mcp.checkpoint.scan import Progress
from parhelia_mcp.checkpoint.store import Store, load, reader
from parhelia_mcp.checkpoint.verify import corrupted, damaged_packs
from parhelia_mcp.errors import Busy, Corrupted, LocalFault, Refused, Usage

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


@dataclass(frozen=True, slots=True)
class Restored:
    """`saved` is where the old target went; `lowered` are paths that lost setuid, setgid or sticky bits."""

    target: Path
    files: int
    bytes: int
    saved: Path | None
    lowered: tuple[str, ...]


def restore(
    store: Store,
    checkpoint: Manifest | str,
    target: Path,
    *,
    part: str = "workspace",
    force: bool = False,
    special_modes: bool = False,
    progress: Progress | None = None,
) -> Restored:
    """Make `target` the directory `part` of the checkpoint, or leave it as it was.

    A target that holds something is refused with what is there; with `force` it is kept as `NAME.N`. Raises Corrupted
    with the newest checkpoint that is whole, Refused, Busy where somebody restores there, LocalFault.
    """
    if isinstance(checkpoint, str):
        checkpoint = load(store, checkpoint)
    target = target.absolute()
    _may_replace(target, force)
    wrong = damaged_packs(store, checkpoint)
    if wrong:
        raise corrupted(store, checkpoint, wrong[0])
    try:
        with local_faults(f"Restoring {checkpoint.id}"), reader(store, checkpoint) as opened:
            trees.check(opened, checkpoint)
            root = trees.find(opened, checkpoint, part)
            if root.kind != form.DIRECTORY:
                raise Usage("not-a-directory", f"{part!r} is a file in {checkpoint.id}.", "name the directory above it")
            files.private_dir(target.parent)
            with _staging(target) as staging:
                _room(opened, checkpoint, root, staging)
                written = _Writing(opened, staging, special_modes, progress)
                failpoint.reach("restore.stage")
                written.tree(root, staging / "new")
                saved = _swap(staging / "new", target, force)
                _finish(root, target, special_modes)
    except Corrupted as problem:
        raise corrupted(store, checkpoint, problem.message) from None
    return Restored(target, written.files, written.bytes, saved, tuple(written.lowered))


def _may_replace(target: Path, force: bool) -> None:
    try:
        info = target.lstat()
    except FileNotFoundError:
        return
    except OSError as problem:
        what = f"{str(target)[:200]} is no place for a directory: {problem.strerror}; nothing was touched."
        raise Refused("bad-target", what, "name a new directory") from None
    if not stat.S_ISDIR(info.st_mode) or target == target.parent:
        raise Refused("bad-target", f"{target} is not a directory that can be replaced.", "name a new directory")
    with os.scandir(target) as listing:
        inside = sorted(item.name for item in listing)
    if inside and not force:
        shown = ", ".join(repr(name)[1:-1] for name in inside[:5]) + (" ..." if len(inside) > 5 else "")
        raise Refused(
            "target-not-empty",
            f"{target} holds {len(inside)} entries ({shown}); nothing was touched.",
            "name a new directory, or add --force to keep the old one beside it",
        )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A locked directory beside the target, cleared of what a killed restore left; removed at the end."""
    path = target.parent / f".{target.name[:200]}.restoring"
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, _FOLDER)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Busy("busy", f"Another restore into {target} is at work.", "try again in a moment") from None
        try:
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(descriptor)
    try:
        os.fchmod(descriptor, 0o700)
        for left in path.iterdir():
            _remove(left)
        yield path
    finally:
        _remove(path)
        os.close(descriptor)


def _remove(path: Path) -> None:
    def open_up(action, name, _problem) -> None:
        parent = Path(name).parent
        parent.chmod(0o700)
        if Path(name).is_dir() and not Path(name).is_symlink():
            Path(name).chmod(0o700)
            shutil.rmtree(name, ignore_errors=True)
        else:
            action(name)

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=open_up)
    else:
        path.unlink()


def _room(opened: Reader, checkpoint: Manifest, root: Entry, staging: Path) -> None:
    """Refuse before anything is written what this disk cannot hold: too much, or names that it takes for one."""
    folds = _folds_case(staging)
    disk = os.statvfs(staging)
    free = disk.f_bavail * disk.f_frsize
    if checkpoint.bytes < free and not folds:
        return
    wanted = 0
    for path, entry in [(b"", root), *trees.walk(opened, root.body)]:
        if entry.kind == form.FILE:
            records = trees.pieces(opened, form.decode_content(entry.body))
            wanted += sum(length for length, name in records if name != form.HOLE)
        elif folds and entry.kind == form.DIRECTORY:
            _no_twins(path, trees.entries(opened, entry.body))
    if wanted > free:
        raise LocalFault("disk-full", f"The files have {wanted} bytes, {free} are free. Nothing was written.", "df -h")


def _folds_case(folder: Path) -> bool:
    probe = folder / "Aa"
    probe.touch()
    try:
        return (folder / "aA").exists()
    finally:
        probe.unlink()


def _no_twins(path: bytes, inside: list[Entry]) -> None:
    seen: set[str] = set()
    for entry in inside:
        name = entry.name.decode(errors="surrogateescape").casefold()
        if name in seen:
            raise damaged(f"{os.fsdecode(path + b'/' + entry.name)!r} differs from another name only by case")
        seen.add(name)


class _Writing:
    """Writes trees below one new directory; nothing is opened by a name that it did not make itself."""

    def __init__(self, opened: Reader, staging: Path, special: bool, progress: Progress | None) -> None:
        self._reader = opened
        self._staging = staging
        self._special = special
        self._progress = progress
        self._linked: dict[tuple[bytes, bytes], bytes] = {}
        self.files = 0
        self.bytes = 0
        self.lowered: list[str] = []

    def tree(self, root: Entry, place: Path) -> None:
        place.mkdir(mode=0o700)
        self._root = os.open(place, _FOLDER)
        try:
            self._inside(self._root, b"", root.body)
        finally:
            os.close(self._root)

    def _inside(self, descriptor: int, path: bytes, tree: bytes) -> None:
        inside = trees.entries(self._reader, tree)
        for entry in inside:
            if entry.kind == form.DIRECTORY:
                self._folder(descriptor, path, entry)
        for entry in inside:
            if entry.kind == form.DIRECTORY:
                continue
            below = path + entry.name
            if entry.kind == form.FILE:
                failpoint.reach("restore.file")
                self._file(descriptor, below, entry)
            elif entry.kind == form.LINK:
                os.symlink(entry.body, entry.name, dir_fd=descriptor)
                os.utime(entry.name, ns=(entry.mtime_ns,) * 2, dir_fd=descriptor, follow_symlinks=False)
            else:
                os.mkfifo(entry.name, 0o600, dir_fd=descriptor)
                os.chmod(entry.name, self._mode(below, entry), dir_fd=descriptor)
                os.utime(entry.name, ns=(entry.mtime_ns,) * 2, dir_fd=descriptor)
            self.files += 1
        if self._progress:
            self._progress(self.files, self.bytes)

    def _folder(self, parent: int, path: bytes, entry: Entry) -> None:
        os.mkdir(entry.name, 0o700, dir_fd=parent)
        descriptor = os.open(entry.name, _FOLDER, dir_fd=parent)
        try:
            below = path + entry.name
            self._inside(descriptor, below + b"/", entry.body)
            _dress(descriptor, entry, self._mode(below, entry))
        finally:
            os.close(descriptor)

    def _file(self, parent: int, path: bytes, entry: Entry) -> None:
        content = form.decode_content(entry.body)
        if content.group != form.NO_GROUP and self._link(parent, path, entry):
            return
        descriptor = os.open(entry.name, _NEW, 0o600, dir_fd=parent)
        try:
            at = 0
            for length, data in trees.data(self._reader, content):
                if data is None:
                    os.lseek(descriptor, length, os.SEEK_CUR)
                else:
                    files.write_all(descriptor, data)
                at += length
            if content.listed or (content.records and content.records[-1][1] == form.HOLE):
                os.ftruncate(descriptor, content.size)
            _dress(descriptor, entry, self._mode(path, entry))
        finally:
            os.close(descriptor)
        self.bytes += content.size

    def _link(self, parent: int, path: bytes, entry: Entry) -> bool:
        """Make it a name of the file that was written for the same group, if there is one."""
        first = self._linked.setdefault((entry.body, entry.xattrs), path)
        if first == path:
            return False
        try:
            os.link(first, entry.name, src_dir_fd=self._root, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as problem:
            if problem.errno in (errno.EMLINK, errno.ENAMETOOLONG, errno.EPERM, errno.ENOTSUP):
                return False
            raise
        return True

    def _mode(self, path: bytes, entry: Entry) -> int:
        if entry.mode & _SPECIAL and not self._special:
            self.lowered.append(os.fsdecode(path))
            return entry.mode & ~_SPECIAL
        return entry.mode


def _dress(descriptor: int, entry: Entry, mode: int) -> None:
    for name, value in form.decode_xattrs(entry.xattrs):
        if name.startswith(b"user.") and hasattr(os, "setxattr"):
            _keep_xattr(descriptor, name, value)
    os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _keep_xattr(descriptor: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(descriptor, name, value)
    except OSError as problem:
        if problem.errno != errno.ENOTSUP:  # a file system without attributes still gets the file
            raise


def _swap(new: Path, target: Path, force: bool) -> Path | None:
    """Give the new tree the target's name; the old one, if it held anything, becomes `NAME.N`."""
    _may_replace(target, force)
    failpoint.reach("restore.swap")
    saved = None
    if target.exists() and any(target.iterdir()):
        number = 1
        while os.path.lexists(saved := target.with_name(f"{target.name}.{number}")):
            number += 1
        target.rename(saved)
    try:
        failpoint.reach("restore.rename")
        new.rename(target)
    except OSError:
        if saved:
            saved.rename(target)
        raise
    return saved


def _finish(root: Entry, target: Path, special: bool) -> None:
    failpoint.reach("restore.finish")
    descriptor = os.open(target, _FOLDER)
    try:
        _dress(descriptor, root, root.mode if special else root.mode & ~_SPECIAL)
    finally:
        os.close(descriptor)
