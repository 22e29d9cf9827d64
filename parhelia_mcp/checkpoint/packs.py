"""Packs: objects bundled in compressed, optionally encrypted frames, written once (`FORMAT.md` sections 2 and 4)."""

from __future__ import annotations

import os
import queue
import struct
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from parhelia_mcp import failpoint, files
from parhelia_mcp.checkpoint.cipher import Cipher, cipher_for
from parhelia_mcp.checkpoint.faults import damaged, local_faults
from parhelia_mcp.checkpoint.format import MAX_OBJECT, MAX_TREE

FRAME = 1 << 20
_HEADER = struct.Struct("<8sII8s")
_TRAILER = struct.Struct("<QII8s")
_COUNTS = struct.Struct("<III")
_FRAME = struct.Struct("<QII")
_MAGIC, _END = b"PARHPACK", b"PARHEND\n"
_MAX_INDEX = 1 << 30


class PackRef(NamedTuple):
    """A pack as manifests list it."""

    name: str
    bytes: int
    hash: str


class Writer:
    """Collects objects into one new pack; a thread of its own compresses and writes, so that reading goes on.

    Nothing is on disk before the first object; `finish` gives None where there was none.
    """

    def __init__(self, folder: Path, cipher: Cipher) -> None:
        self._folder = folder
        self._cipher = cipher
        self.new: dict[bytes, int] = {}  # id -> length
        self._data: tuple[list[bytes], list[bytes]] = ([], [])
        self._pending: tuple[list[bytes], list[bytes]] = ([], [])
        self._filled = [0, 0]
        self._trees: set[bytes] = set()
        self._places: list[tuple[bytes, int, int, int]] = []
        self._frames: list[tuple[int, int, int]] = []
        self._count = 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(8)
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None
        self._descriptor = -1
        self._draft = folder / f".draft-{os.getpid()}-{os.urandom(4).hex()}"

    def add(self, name: bytes, data: bytes, *, tree: bool = False) -> None:
        """Keep `data` under the id `name`, once."""
        if name in self.new:
            return
        self.new[name] = len(data)
        if tree:
            self._trees.add(name)
        self._data[tree].append(data)
        self._pending[tree].append(name)
        self._filled[tree] += len(data)
        if self._filled[tree] >= FRAME:
            self._flush(tree)

    def _flush(self, tree: bool) -> None:
        offset = 0
        for name, data in zip(self._pending[tree], self._data[tree], strict=True):
            self._places.append((name, self._count, offset, len(data)))
            offset += len(data)
        self._count += 1
        block = b"".join(self._data[tree])
        self._pending[tree].clear()
        self._data[tree].clear()
        self._filled[tree] = 0
        if self._thread is None:
            self._start()
        self._put(block)

    def _start(self) -> None:
        from blake3 import blake3

        failpoint.reach("checkpoint.pack-open")
        files.private_dir(self._folder)
        self._descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = blake3()
        self._offset = 0
        self._write(_HEADER.pack(_MAGIC, 1, 0, self._cipher.name))
        self._thread = threading.Thread(target=self._work, name="checkpoint-pack", daemon=True)
        self._thread.start()

    def _put(self, block: bytes | None) -> None:
        while self._fault is None:
            try:
                self._queue.put(block, timeout=0.5)
            except queue.Full:
                continue
            return
        self._stop()

    def _stop(self) -> None:
        with local_faults("Writing the checkpoint"):
            raise self._fault

    def _work(self) -> None:
        import zstandard

        compressor = zstandard.ZstdCompressor(level=1)
        try:
            while (block := self._queue.get()) is not None:
                failpoint.reach("checkpoint.pack")
                start = self._offset
                self._write(self._cipher.seal(block, compressor))
                self._frames.append((start, self._offset - start, len(block)))
        except BaseException as fault:  # noqa: BLE001  # carried to the thread that waits for the pack
            self._fault = fault

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        files.write_all(self._descriptor, data)
        self._offset += len(data)

    def finish(self) -> PackRef | None:
        """Give the pack its name once it is on the disk."""
        for tree in (False, True):
            if self._data[tree]:
                self._flush(tree)
        if self._thread is None:
            return None
        self._put(None)
        self._thread.join()
        if self._fault:
            self._stop()
        self._write_index()
        failpoint.reach("checkpoint.pack-sync")
        os.fsync(self._descriptor)
        name = self._hash.hexdigest()
        failpoint.reach("checkpoint.pack-rename")
        self._draft.rename(self._folder / f"{name}.pack")
        (self._folder / f"{name}.bad").unlink(missing_ok=True)
        files.sync_dir(self._folder)
        return PackRef(f"{name}.pack", self._offset, name)

    def _write_index(self) -> None:
        import zstandard

        trees = [place for place in self._places if place[0] in self._trees]
        places = trees + [place for place in self._places if place[0] not in self._trees]
        columns = [array("I", [place[at] for place in places]).tobytes() for at in (1, 2, 3)]
        index = b"".join(
            (
                _COUNTS.pack(len(self._frames), len(places), len(trees)),
                b"".join([_FRAME.pack(*frame) for frame in self._frames]),
                b"".join([place[0] for place in places]),
                *columns,
            )
        )
        start = self._offset
        self._write(self._cipher.seal(index, zstandard.ZstdCompressor(level=1)))
        self._write(_TRAILER.pack(start, self._offset - start, len(index), _END))

    def close(self) -> None:
        """Stop the thread and drop the draft, whatever happened; nothing after `finish`."""
        if self._thread and self._thread.is_alive():
            self._fault = self._fault or InterruptedError()
            while self._thread.is_alive():
                try:
                    self._queue.put_nowait(None)
                except queue.Full:
                    self._queue.get_nowait()
                self._thread.join(0.05)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._draft.unlink(missing_ok=True)


class Pack:
    """One pack open for reading; it stays readable when it is removed meanwhile."""

    def __init__(self, folder: Path, ref: PackRef, key: bytes | None, *, header_only: bool = False) -> None:
        self.ref = ref
        try:
            self._descriptor = os.open(folder / ref.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as problem:
            raise damaged(f"Pack {ref.name[:12]} cannot be opened ({problem.strerror})") from None
        try:
            place = self._open(key)
            if not header_only:
                self._read_index(*place)
        except BaseException:
            self.close()
            raise

    def _open(self, key: bytes | None) -> tuple[int, int, int]:
        size = os.fstat(self._descriptor).st_size
        what = f"Pack {self.ref.name[:12]}"
        if size != self.ref.bytes or size < _HEADER.size + _TRAILER.size:
            raise damaged(f"{what} has {size} bytes, its manifest says {self.ref.bytes}")
        magic, version, _, key_name = _HEADER.unpack(self._read(0, _HEADER.size))
        start, stored, raw, end = _TRAILER.unpack(self._read(size - _TRAILER.size, _TRAILER.size))
        if magic != _MAGIC or version != 1 or end != _END or raw > _MAX_INDEX:
            raise damaged(f"{what} is not a pack of version 1")
        self.cipher = cipher_for(key_name, key, what)
        return start, stored, raw

    def _read_index(self, start: int, stored: int, raw: int) -> None:
        what = f"Pack {self.ref.name[:12]}"
        index = self.cipher.open(self._read(start, stored), raw)
        if len(index) < _COUNTS.size:
            raise damaged(f"{what} has a torn index")
        frames, objects, self.trees = _COUNTS.unpack_from(index)
        at = _COUNTS.size + frames * _FRAME.size
        if len(index) != at + objects * 44 or self.trees > objects:
            raise damaged(f"{what} has a torn index")
        self.objects = objects
        self.frames = list(_FRAME.iter_unpack(index[_COUNTS.size : at]))
        self._names = index[at : at + 32 * objects]
        self.columns = [array("I"), array("I"), array("I")]
        at += 32 * objects
        for column in self.columns:
            column.frombytes(index[at : at + 4 * objects])
            at += 4 * objects
        self.raw = sum(frame[2] for frame in self.frames)

    def ids(self, start: int, end: int | None) -> list[bytes]:
        """The ids of the objects from row `start` on; trees come first."""
        names = self._names[32 * start : None if end is None else 32 * end]
        return [names[at : at + 32] for at in range(0, len(names), 32)]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, offset)
        except (OSError, OverflowError):
            data = b""
        if len(data) != size:
            raise damaged(f"Pack {self.ref.name[:12]} cannot be read at {offset}")
        return data

    def frame(self, number: int) -> bytes:
        if number >= len(self.frames):
            raise damaged(f"Pack {self.ref.name[:12]} has no block {number}")
        offset, stored, raw = self.frames[number]
        if raw > MAX_TREE + FRAME:
            raise damaged(f"Pack {self.ref.name[:12]} holds a block of {raw} bytes")
        return self.cipher.open(self._read(offset, stored), raw)

    def close(self) -> None:
        os.close(self._descriptor)


class Reader:
    """Objects of one checkpoint by id, each checked against its id."""

    def __init__(self, folder: Path, refs: Iterable[PackRef], key: bytes | None) -> None:
        self.packs: list[Pack] = []
        self._starts: list[int] = []  # rows of all packs are numbered through
        self._trees: dict[bytes, int] = {}
        self._frames: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._held = 0
        rows = 0
        try:
            for ref in refs:
                pack = Pack(folder, ref, key)
                self.packs.append(pack)
                self._starts.append(rows)
                self._trees.update(zip(pack.ids(0, pack.trees), range(rows, rows + pack.trees), strict=True))
                rows += pack.objects
        except BaseException:
            self.close()
            raise

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        """Rows of objects that are not trees; made when the first is asked for, because comparing needs none."""
        rows: dict[bytes, int] = {}
        for start, pack in zip(self._starts, self.packs, strict=True):
            rows.update(zip(pack.ids(pack.trees, None), range(start + pack.trees, start + pack.objects), strict=True))
        return rows

    def _row(self, name: bytes) -> int | None:
        row = self._trees.get(name)
        return self._rows.get(name) if row is None else row

    def pack_of(self, name: bytes) -> int:
        """The number of the pack that holds an object, or -1."""
        row = self._row(name)
        return -1 if row is None else bisect_right(self._starts, row) - 1

    def _place(self, name: bytes) -> tuple[int, int]:
        row = self._row(name)
        if row is None:
            raise damaged(f"Object {name.hex()[:12]} is in none of the checkpoint's packs")
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]

    def length(self, name: bytes) -> int:
        """How long the object is, as its index says."""
        number, row = self._place(name)
        return self.packs[number].columns[2][row]

    def read(self, name: bytes, *, tree: bool = False) -> bytes:
        number, row = self._place(name)
        pack = self.packs[number]
        frames, offsets, lengths = pack.columns
        if lengths[row] > (MAX_TREE if tree else MAX_OBJECT):
            raise damaged(f"Object {name.hex()[:12]} says it has {lengths[row]} bytes")
        data = self._frame(number, frames[row])[offsets[row] : offsets[row] + lengths[row]]
        if pack.cipher.identify(data) != name:
            raise damaged(f"Object {name.hex()[:12]} in pack {pack.ref.name[:12]} does not match its hash")
        return data

    def _frame(self, pack: int, number: int) -> bytes:
        key = (pack, number)
        found = self._frames.get(key)
        if found is not None:
            self._frames.move_to_end(key)
        else:
            found = self._frames[key] = self.packs[pack].frame(number)
            self._held += len(found)
            while self._held > 64 * FRAME and len(self._frames) > 1:
                self._held -= len(self._frames.popitem(last=False)[1])
        return found

    def close(self) -> None:
        for pack in self.packs:
            pack.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
