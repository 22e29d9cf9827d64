"""Reads directories into trees, and of files only what changed since the last checkpoint."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable

from parhelia_mcp import failpoint
from parhelia_mcp.checkpoint import format as form
from parhelia_mcp.checkpoint.cache import NEVER, STAMP, Cache, Seen, by_name
from parhelia_mcp.checkpoint.cipher import Cipher
from parhelia_mcp.checkpoint.format import Content, Entry
from parhelia_mcp.checkpoint.manifest import Skipped
from parhelia_mcp.checkpoint.packs import Reader, Writer

Progress = Callable[[int, int], None]

_WHOLE = 64 << 10  # files up to this are one piece
_BLOCK = 8 << 20
_INLINE = 64  # pieces that a file's entry holds itself
_LIST = 1024
_ENCODING = sys.getfilesystemencoding()
_TICK_NS = 20_000_000  # file times move in ticks of the kernel's clock; never more than this
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ELOOP, errno.ESTALE, errno.ENOTDIR, errno.ENXIO}
_KIND = 0o170000
_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


# What is not a directory: its name, what was seen of it, how to open it from its directory. Plain, as there are many.
Found = tuple[bytes, os.stat_result, bytes]


class Excludes:
    """Globs: without a slash they match a name anywhere, with one a path from the root. `*` crosses slashes."""

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = [pattern.rstrip("/") for pattern in patterns if pattern.strip("/")]
        self._name = self._union(pattern for pattern in patterns if "/" not in pattern)
        self._path = self._union(pattern.lstrip("/") for pattern in patterns if "/" in pattern)
        self.empty = not patterns

    @staticmethod
    def _union(patterns: Iterable[str]) -> Callable[[str], object]:
        joined = "|".join(fnmatch.translate(pattern) for pattern in patterns)
        return re.compile(joined or r"(?!)").match

    def match(self, folder: bytes, name: str) -> bool:
        if self._name(name):
            return True
        _, _, inside = os.fsdecode(folder).partition("/")
        return bool(self._path(f"{inside}/{name}" if inside else name))


class Scan:
    """One pass over the sources. Adds what is new to `writer`; remembers what the manifest and the cache need.

    Packs are numbered as in `reader` (those of the checkpoint before), the new one comes last.
    """

    def __init__(
        self,
        writer: Writer,
        cipher: Cipher,
        cache: Cache,
        reader: Callable[[], Reader],
        *,
        packs: int,
        started_ns: int,
        own: tuple[int, int],
        progress: Progress | None,
    ) -> None:
        self.writer, self.cipher, self.cache = writer, cipher, cache
        self._open_reader, self.reader = reader, None
        self.new_pack = packs
        self._trusted_before = started_ns - _TICK_NS
        self._own = own
        self._progress = progress
        self.excludes = Excludes(())
        self.directories: dict[bytes, Seen] = {}
        self._live: Counter[int] = Counter()  # of the directory whose files are being read
        self.lists: dict[bytes, list[tuple[int, bytes]]] = {}
        self.skipped: list[Skipped] = []
        self.changed: list[bytes] = []
        self.files = 0
        self.bytes = 0

    def skip(self, path: bytes, why: str) -> None:
        self.skipped.append(Skipped.of(path, why))

    def place(self, name: bytes) -> int:
        """The number of the pack that holds an object, or -1."""
        if name in self.writer.new:
            return self.new_pack
        if self.reader is None:
            self.reader = self._open_reader()
        return self.reader.pack_of(name)

    def add(self, data: bytes, *, tree: bool = False) -> tuple[bytes, int]:
        """Keep an object; its id and the number of its pack."""
        name = self.cipher.identify(data)
        number = self.place(name)
        if number < 0:
            self.writer.add(name, data, tree=tree)
            number = self.new_pack
        if not tree:
            self._live[number] += len(data)
        return name, number

    def directory(self, descriptor: int, path: bytes, own: os.stat_result, depth: int = 2) -> tuple[bytes, bytes]:
        """Keep a directory and all below; the id of its tree and its attributes."""
        seen = self.cache.directories.get(path)
        stamp = _stamp(own)
        xattrs = seen.xattrs if seen and seen.stamp == stamp else _xattrs(descriptor)
        files, folders = self._list(descriptor, path)
        parts = []
        for name, info in folders:
            entry = self._folder(descriptor, path, name, info, depth)
            if entry is not None:
                parts.append(entry)
        return self.seal(path, descriptor, self._trust(own, stamp), xattrs, files, b"".join(parts)), xattrs

    def _folder(self, parent: int, path: bytes, name: bytes, info: os.stat_result, depth: int) -> bytes | None:
        below = path + b"/" + name
        if depth >= form.MAX_DEPTH:
            self.skip(below, "nested too deeply")
            return None
        try:
            descriptor = os.open(name, _READ | os.O_DIRECTORY, dir_fd=parent)
        except OSError as problem:
            self._missed(below, problem)
            return None
        try:
            tree, xattrs = self.directory(descriptor, below, info, depth + 1)
        except OSError as problem:
            self._missed(below, problem)
            return None
        finally:
            os.close(descriptor)
        return Entry(form.DIRECTORY, name, stat.S_IMODE(info.st_mode), info.st_mtime_ns, xattrs, tree).encode()

    def _missed(self, path: bytes, problem: OSError) -> None:
        if problem.errno in _GONE:
            self.changed.append(path)
        else:
            self.skip(path, os.strerror(problem.errno or 0))

    def _list(self, descriptor: int, path: bytes) -> tuple[list[Found], list[tuple[bytes, os.stat_result]]]:
        files, folders = [], []
        excluded = None if self.excludes.empty else self.excludes.match
        with os.scandir(descriptor) as listing:
            for item in listing:
                if excluded and excluded(path, item.name):
                    continue
                name = item.name.encode(_ENCODING, "surrogateescape")
                try:
                    info = item.stat(follow_symlinks=False)
                except OSError as problem:
                    self._missed(path + b"/" + name, problem)
                    continue
                kind = info.st_mode & _KIND
                if kind == stat.S_IFREG or (kind != stat.S_IFDIR and kind not in _KINDS):
                    files.append((name, info, name))
                elif kind in _KINDS:
                    self.skip(path + b"/" + name, _KINDS[kind])
                elif (info.st_dev, info.st_ino) != self._own:
                    folders.append((name, info))
        files.sort()
        folders.sort()
        return files, folders

    def seal(
        self, path: bytes, descriptor: int | None, stamp: bytes, xattrs: bytes, files: list[Found], folders: bytes
    ) -> bytes:
        """Keep one directory whose subdirectories are kept already; the id of its tree."""
        seen = self.cache.directories.get(path)
        if seen and seen.key == _key(files):
            key, part, live, size = seen.key, seen.part, seen.live, seen.size
            self.files += len(files)
            self.bytes += size
        else:
            before = self.bytes
            key, part, live = self._files(path, descriptor, files, by_name(seen) if seen else {})
            size = self.bytes - before
        payload = form.encode_tree(part, folders)
        tree = self.cipher.identify(payload)
        number = seen.tree_pack if seen and tree == seen.tree else self.add(payload, tree=True)[1]
        self.directories[path] = Seen(stamp, xattrs, tree, number, key, part, live, size)
        if self._progress:
            self._progress(self.files, self.bytes)
        return tree

    def _files(
        self, path: bytes, descriptor: int | None, files: list[Found], old: dict[bytes, tuple[bytes, bytes]]
    ) -> tuple[bytes, bytes, tuple[tuple[int, int], ...]]:
        keys, part = [], []
        self._live = Counter()
        for one in files:
            name, info, _ = one
            stamp = _stamp(info)
            before = old.get(name)
            if before is not None and before[0] == stamp:
                entry = before[1]
                self._account(form.decode_entry(entry))
            else:
                troubles = len(self.changed)
                kept = self._entry(descriptor, path + b"/" + name, one)
                if kept is None:
                    continue
                entry = kept.encode()
                stamp = NEVER if len(self.changed) > troubles else self._trust(info, stamp)
            keys.append(stamp + name + b"\0")
            part.append(entry)
            self.files += 1
        return b"".join(keys), b"".join(part), tuple(sorted(self._live.items()))

    def _account(self, entry: Entry) -> None:
        """Count an entry that was kept before and not read again."""
        if entry.kind != form.FILE:
            return
        content = form.decode_content(entry.body)
        self.bytes += content.size
        for length, name in content.records:
            if name == form.HOLE:
                continue
            self._live[self.place(name)] += 1 if content.listed else length
            if content.listed:
                for size, piece in self.pieces(name):
                    if piece != form.HOLE:
                        self._live[self.place(piece)] += size

    def pieces(self, name: bytes) -> Iterable[tuple[int, bytes]]:
        """The records of a list that was kept now or before."""
        return self.lists[name] if name in self.lists else form.decode_records(self.reader.read(name))

    def _entry(self, descriptor: int | None, path: bytes, one: Found) -> Entry | None:
        name, info, opens = one
        try:
            if stat.S_ISREG(info.st_mode):
                return self._regular(descriptor, path, one)
            if stat.S_ISLNK(info.st_mode):
                kind, body = form.LINK, os.readlink(opens, dir_fd=descriptor)
            else:
                kind, body = form.FIFO, b""
        except OSError as problem:
            self._missed(path, problem)
            return None
        return Entry(kind, name, stat.S_IMODE(info.st_mode), info.st_mtime_ns, b"", body)

    def _regular(self, descriptor: int | None, path: bytes, one: Found) -> Entry | None:
        name, listed, opens = one
        file = os.open(opens, _READ, dir_fd=descriptor)
        try:
            info = os.fstat(file)
            for _ in range(2):
                if not stat.S_ISREG(info.st_mode):
                    self.changed.append(path)
                    return None
                before = info
                content, xattrs = self._content(file, info), _xattrs(file)
                failpoint.reach("checkpoint.read")
                info = os.fstat(file)
                if _same(info, before):
                    break
            if not _same(info, before) or not _same(before, listed):
                self.changed.append(path)
        finally:
            os.close(file)
        self.bytes += content.size
        return Entry(form.FILE, name, stat.S_IMODE(before.st_mode), before.st_mtime_ns, xattrs, content.encode())

    def _content(self, file: int, info: os.stat_result) -> Content:
        group = form.NO_GROUP
        if info.st_nlink > 1:
            group = self.cipher.identify(b"%d %d" % (info.st_dev, info.st_ino))[:8]
        sparse = info.st_blocks * 512 < info.st_size
        if info.st_size <= _WHOLE and not sparse:
            data = os.pread(file, info.st_size, 0) if info.st_size else b""
            records = [(len(data), self.add(data)[0])] if data else []
            return Content(len(data), group, False, tuple(records))
        records = []
        at = 0
        for start, end in _extents(file, info.st_size) if sparse else [(0, info.st_size)]:
            if start > at:
                records.append((start - at, form.HOLE))
            records += self._pieces(file, start, end)
            at = end
        if at < info.st_size and sparse:
            records.append((info.st_size - at, form.HOLE))
        if len(records) > _INLINE:
            return Content(sum(length for length, _ in records), group, True, tuple(self._lists(records)))
        return Content(sum(length for length, _ in records), group, False, tuple(records))

    def _pieces(self, file: int, start: int, end: int) -> list[tuple[int, bytes]]:
        from tilecdc import Chunker

        chunker = Chunker(8 << 10, 32 << 10, 256 << 10)
        records, rest, at = [], b"", start
        while at < end:
            block = os.pread(file, min(_BLOCK, end - at), at)
            at += len(block)
            last = not block or at >= end
            data = rest + block
            offset = 0
            lengths = chunker.chunk(data)
            for length in lengths if last else lengths[:-1]:
                piece = data[offset : offset + length]
                records.append((length, self.add(piece)[0]))
                offset += length
            rest = data[offset:]
            if last:
                break
        return records

    def _lists(self, records: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        lists, pending = [], []
        for number, record in enumerate(records, 1):
            pending.append(record)
            if len(pending) == _LIST or record[1][0] == 0 or number == len(records):
                name = self.add(form.encode_records(pending))[0]
                self.lists[name] = pending
                lists.append((sum(length for length, _ in pending), name))
                pending = []
        return lists

    def _trust(self, info: os.stat_result, stamp: bytes) -> bytes:
        return stamp if max(info.st_mtime_ns, info.st_ctime_ns) < self._trusted_before else NEVER


def _key(files: list[Found]) -> bytes:
    """What the cache says of a directory whose files are all as they were; the stamp written out, for speed."""
    pack = STAMP.pack
    return b"".join(
        [
            pack(at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_mode, at.st_nlink)
            + name
            + b"\0"
            for name, at, _ in files
        ]
    )


def _stamp(info: os.stat_result) -> bytes:
    return STAMP.pack(
        info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode, info.st_nlink
    )


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether nothing happened to a file between two looks."""
    return (
        one.st_ctime_ns == other.st_ctime_ns
        and one.st_mtime_ns == other.st_mtime_ns
        and one.st_size == other.st_size
        and one.st_ino == other.st_ino
        and one.st_dev == other.st_dev
    )


def _extents(file: int, size: int) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        at = min(os.lseek(file, start, os.SEEK_HOLE), size)
        if start < at:
            found.append((start, at))
    return found


def _xattrs(descriptor: int) -> bytes:
    """The user's own attributes; others belong to the system they were set on."""
    if not hasattr(os, "listxattr"):
        return b""
    try:
        names = [name for name in os.listxattr(descriptor) if name.startswith("user.")]
        return form.encode_xattrs([(os.fsencode(name), os.getxattr(descriptor, name)) for name in names])
    except OSError:  # the file system has none
        return b""
