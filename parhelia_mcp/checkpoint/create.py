"""Takes a checkpoint: scan, one new pack, the manifest last."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path

from parhelia_mcp import failpoint, files
from parhelia_mcp.checkpoint import cache as caches
from parhelia_mcp.checkpoint import format as form
from parhelia_mcp.checkpoint import trees
from parhelia_mcp.checkpoint.cache import NEVER, Cache
from parhelia_mcp.checkpoint.cipher import Cipher
from parhelia_mcp.checkpoint.faults import local_faults
from parhelia_mcp.checkpoint.manifest import Facts, Manifest
from parhelia_mcp.checkpoint.packs import Pack, PackRef, Reader, Writer
from parhelia_mcp.checkpoint.scan import Excludes, Found, Progress, Scan
from parhelia_mcp.checkpoint.store import Store, survey, writing
from parhelia_mcp.errors import Corrupted, LocalFault, NotFound, Refused, Usage
from parhelia_mcp.model import now, timestamp

_MOST_PACKS = 64
_SMALL = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file or directory, and its path in the checkpoint (`workspace`, `conversation/...`, `extra/...`).

    `exclude` globs hold for this source. One that is not there is left out where it is `optional`.
    """

    name: str
    path: Path
    exclude: tuple[str, ...] = ()
    optional: bool = False


def create(
    store: Store,
    sources: Iterable[Source],
    facts: Facts,
    *,
    parent: str | None = None,
    unless_same: bool = False,
    progress: Progress | None = None,
    wait_s: float = 30.0,
) -> Manifest:
    """Keep the sources as they are now; the manifest, once every byte of it is on the disk.

    `parent` is an id (default: the newest checkpoint). With `unless_same` and nothing changed since the newest one
    but what is `extra`, that one is returned and nothing is written. What could not be read makes it `partial`, never a failure. Raises
    Busy, LocalFault (nothing older is harmed), NotFound where a source is missing.
    """
    with writing(store, wait_s=wait_s, what="Taking the checkpoint"):
        past = _Past(store)
        writer = Writer(store.packs, past.cipher)
        try:
            scan = past.scan(writer, progress)
            failpoint.reach("checkpoint.scan")
            found: list[Found] = []
            parts = _virtual(scan, b"", _nested(sources), found)
            tree = scan.seal(b"", None, NEVER, b"", found, b"".join(parts))
            if unless_same and past.newest and past.whole and past.same(tree, parts):
                return past.newest
            moved = _thin(scan) if scan.reader else frozenset()
            new = writer.finish()
        finally:
            writer.close()
            past.close()
        refs = _needed(scan, past.refs, new, moved)
        made = _manifest(scan, tree, refs, facts, parent or (past.newest.id if past.newest else None), past.taken)
        _publish(store, made)
        _remember(store, scan, made, past, moved)
    return made


class _Past:
    """What earlier checkpoints left that this one may rely on."""

    def __init__(self, store: Store) -> None:
        self.cipher = Cipher(store.key)
        self._store = store
        known, broken = survey(store)
        self.newest = known[-1] if known else None
        self.taken = {one.hash[:8] for one in known} | {name[:8] for name in broken}
        listed = self.newest.packs if self.newest else ()
        self.refs = [ref for ref in listed if self._usable(ref)]
        self.whole = len(self.refs) == len(listed)
        self._reader: Reader | None = None

    def _usable(self, ref: PackRef) -> bool:
        path = self._store.packs / ref.name
        try:
            if path.stat().st_size != ref.bytes or path.with_suffix(".bad").exists():
                return False
            pack = Pack(self._store.packs, ref, self._store.key, header_only=True)
        except (OSError, Corrupted, Refused):
            return False
        pack.close()
        return pack.cipher.name == self.cipher.name

    def scan(self, writer: Writer, progress: Progress | None) -> Scan:
        cache = caches.EMPTY
        if self.newest and self.whole:
            cache = caches.read(self._store.path / "cache", tuple(ref.hash for ref in self.refs), self.cipher.name)
        info = self._store.path.stat()
        return Scan(
            writer,
            self.cipher,
            cache,
            self._open,
            packs=len(self.refs),
            started_ns=time.time_ns(),
            own=(info.st_dev, info.st_ino),
            progress=progress,
        )

    def same(self, tree: bytes, parts: list[bytes]) -> bool:
        """Whether the newest one holds these parts, whatever it has as `extra`."""
        if tree.hex() == self.newest.tree:
            return True
        with Reader(self._store.packs, self.refs, self._store.key) as opened:
            before = trees.entries(opened, bytes.fromhex(self.newest.tree))
        return _apart_from_extra(before) == _apart_from_extra(map(form.decode_entry, parts))

    def _open(self) -> Reader:
        self._reader = Reader(self._store.packs, self.refs, self._store.key)
        return self._reader

    def close(self) -> None:
        if self._reader:
            self._reader.close()


def _apart_from_extra(parts: Iterable[form.Entry]) -> list[form.Entry]:
    return [one for one in parts if one.name != b"extra"]


def _nested(sources: Iterable[Source]) -> dict:
    """The sources below the directories that their names ask for."""
    inside: dict = {}
    for source in sources:
        *folders, last = source.name.split("/")
        at = inside
        for folder in folders:
            at = at.setdefault(folder, {})
            if isinstance(at, Source):
                raise Usage("bad-source", f"{source.name!r} lies inside another source.", "name each source apart")
        if last in at or not last:
            raise Usage("bad-source", f"{source.name!r} is there twice.", "name each source apart")
        at[last] = source
    return inside


def _virtual(scan: Scan, path: bytes, inside: dict, found: list[Found]) -> list[bytes]:
    """Keep what is inside; the entries of directories, and in `found` the files that `path` itself holds."""
    folders = []
    for text, item in sorted(inside.items(), key=lambda pair: os.fsencode(pair[0])):
        name = os.fsencode(text)
        below = path + b"/" + name if path else name
        if isinstance(item, Source):
            entry = _source(scan, below, name, item, found)
        else:
            files_here: list[Found] = []
            inner = b"".join(_virtual(scan, below, item, files_here))
            tree = scan.seal(below, None, NEVER, b"", files_here, inner)
            entry = form.Entry(form.DIRECTORY, name, 0o700, 0, b"", tree).encode()
        if entry:
            folders.append(entry)
    return folders


def _source(scan: Scan, path: bytes, name: bytes, source: Source, found: list[Found]) -> bytes | None:
    try:
        info = source.path.stat()
        if not stat.S_ISDIR(info.st_mode):
            if not stat.S_ISREG(info.st_mode):
                raise Usage("bad-source", f"{source.path} is neither a file nor a directory.", "name one of those")
            found.append((name, info, os.fsencode(source.path.resolve())))
            return None
        descriptor = os.open(source.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if source.optional:
            return None
        raise NotFound("no-such-directory", f"{source.path} is not there.", f"mkdir {source.path}") from None
    except OSError as problem:
        why = f"{source.path} cannot be read: {problem.strerror}."
        raise LocalFault("unreadable-source", why, f"ls -ld {source.path}") from None
    try:
        scan.excludes = Excludes(source.exclude)
        tree, xattrs = scan.directory(descriptor, path, info)
    finally:
        os.close(descriptor)
    mode = stat.S_IMODE(info.st_mode)
    return form.Entry(form.DIRECTORY, name, mode, info.st_mtime_ns, xattrs, tree).encode()


def _live(scan: Scan) -> Counter[int]:
    """Bytes of this checkpoint in each pack; files kept twice count twice."""
    live: Counter[int] = Counter()
    for seen in scan.directories.values():
        live.update(dict(seen.live))
        live[seen.tree_pack] += 1
    return live


def _thin(scan: Scan) -> frozenset[int]:
    """Copy what is still needed of packs that are mostly dead, or small and many, into the new one.

    So no pack is ever rewritten, and the old ones go when the checkpoints that list them do.
    """
    live = _live(scan)
    packs = scan.reader.packs
    held = [number for number in range(len(packs)) if live[number]]
    moved = {number for number in held if live[number] * 4 < packs[number].raw}
    if len(held) > _MOST_PACKS:
        moved |= {number for number in held if packs[number].ref.bytes < _SMALL}
    if moved:
        for seen in scan.directories.values():
            _copy(scan, seen, moved)
    return frozenset(moved)


def _copy(scan: Scan, seen: caches.Seen, moved: set[int]) -> None:
    def keep(name: bytes, *, tree: bool = False) -> None:
        if name != form.HOLE and name not in scan.writer.new and scan.place(name) in moved:
            scan.writer.add(name, scan.reader.read(name, tree=tree), tree=tree)

    if seen.tree_pack in moved:
        keep(seen.tree, tree=True)
    if not any(number in moved for number, _ in seen.live):
        return
    for entry in form.decode_tree(form.encode_tree(seen.part, b"")):
        if entry.kind != form.FILE:
            continue
        content = form.decode_content(entry.body)
        for _, name in content.records:
            if content.listed:
                for _, piece in scan.pieces(name):
                    keep(piece)
            keep(name)


def _needed(scan: Scan, old: list[PackRef], new: PackRef | None, moved: frozenset[int]) -> tuple[PackRef, ...]:
    live = _live(scan)
    refs = [ref for number, ref in enumerate(old) if live[number] and number not in moved]
    return (*refs, new) if new else tuple(refs)


def _manifest(
    scan: Scan, tree: bytes, refs: tuple[PackRef, ...], facts: Facts, parent: str | None, taken: set[str]
) -> Manifest:
    said = {field.name: getattr(facts, field.name) for field in fields(Facts)}
    at = now()
    while True:
        made = Manifest(
            **said,
            parent=parent,
            created_at=timestamp(at),
            skipped=tuple(scan.skipped),
            changed=tuple(sorted({path.decode(errors="surrogateescape") for path in scan.changed})),
            tree=tree.hex(),
            packs=refs,
            files=scan.files,
            bytes=scan.bytes,
        ).named()
        if made.hash[:8] not in taken:
            return made
        at += timedelta(milliseconds=1)


def _publish(store: Store, made: Manifest) -> None:
    failpoint.reach("checkpoint.manifest")
    with local_faults("Writing the checkpoint's manifest"):
        files.replace(store.manifests / f"{made.hash}.json", made.encode(), durable=True)
    failpoint.reach("checkpoint.published")


def _remember(store: Store, scan: Scan, made: Manifest, past: _Past, moved: frozenset[int]) -> None:
    """Leave the cache for the next one; where that fails the next one is only slower."""
    numbers = {ref.name: number for number, ref in enumerate(made.packs)}
    renumber = {number: numbers[ref.name] for number, ref in enumerate(past.refs) if ref.name in numbers}
    last = len(made.packs) - 1
    renumber |= dict.fromkeys((*moved, scan.new_pack), last)
    directories = {
        path: seen._replace(
            tree_pack=renumber[seen.tree_pack],
            live=tuple((renumber[number], size) for number, size in seen.live),
        )
        for path, seen in scan.directories.items()
    }
    left = Cache(tuple(ref.hash for ref in made.packs), directories)
    if left == scan.cache:
        return
    try:
        failpoint.reach("checkpoint.cache")
        caches.write(store.path / "cache", left, past.cipher.name)
    except OSError:
        (store.path / "cache").unlink(missing_ok=True)
