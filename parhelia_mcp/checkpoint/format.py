"""The bytes of trees, lists and files as `FORMAT.md` section 3 lays them down; nothing here does I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from parhelia_mcp.checkpoint.faults import damaged

ID_BYTES = 32
HOLE = bytes(ID_BYTES)
NO_GROUP = bytes(8)
MAX_DEPTH = 256
MAX_OBJECT = 16 << 20
MAX_TREE = 256 << 20
FILE, DIRECTORY, LINK, FIFO = b"F", b"D", b"L", b"P"

_KINDS = frozenset({FILE, DIRECTORY, LINK, FIFO})
_NO_NAMES = frozenset({b"", b".", b".."})
_TREE_MAGIC = b"T1"
_ENTRY = struct.Struct("<cHHqII")
_FILE = struct.Struct("<Q8sB")
_RECORD = struct.Struct("<Q32s")
_ONE_PIECE = struct.Struct("<Q8sBQ32s")
_XATTR = struct.Struct("<HI")


class Entry(NamedTuple):
    """One name in a directory. `body` is by kind: a tree's id, a link's target, nothing, or `Content` encoded."""

    kind: bytes
    name: bytes
    mode: int
    mtime_ns: int
    xattrs: bytes
    body: bytes

    def encode(self) -> bytes:
        head = _ENTRY.pack(self.kind, self.mode, len(self.name), self.mtime_ns, len(self.xattrs), len(self.body))
        return b"".join((head, self.name, self.xattrs, self.body))


class Content(NamedTuple):
    """What a file holds: pieces in order, or (`listed`) the lists that hold them."""

    size: int
    group: bytes
    listed: bool
    records: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        return _FILE.pack(self.size, self.group, self.listed) + encode_records(self.records)


def encode_records(records: tuple[tuple[int, bytes], ...] | list[tuple[int, bytes]]) -> bytes:
    return b"".join([_RECORD.pack(length, name) for length, name in records])


def decode_records(data: bytes) -> tuple[tuple[int, bytes], ...]:
    if len(data) % _RECORD.size:
        raise damaged("A list of file pieces is torn")
    return tuple(_RECORD.iter_unpack(data))


def decode_content(body: bytes) -> Content:
    """The content in a file's body; raises Corrupted where its lengths do not add up."""
    if len(body) < _FILE.size:
        raise damaged("A file's entry is torn")
    size, group, form = _FILE.unpack_from(body)
    if len(body) == _ONE_PIECE.size:
        length, name = _RECORD.unpack_from(body, _FILE.size)
        if length == size and form == 0:
            return Content(size, group, False, ((length, name),))
    records = decode_records(body[_FILE.size :])
    if form > 1 or sum(length for length, _ in records) != size:
        raise damaged("A file's pieces do not add up to its size")
    return Content(size, group, form == 1, records)


def encode_tree(files: bytes, directories: bytes) -> bytes:
    """A tree object of entries that are already encoded and sorted."""
    return _TREE_MAGIC + files + directories


def decode_tree(data: bytes) -> list[Entry]:
    """The entries of a tree; raises Corrupted for anything that FORMAT.md forbids."""
    return _checked(_records(data))


def unlike(left: bytes, right: bytes) -> tuple[list[Entry], list[Entry]]:
    """The entries of each of two trees that the other does not hold just so, checked as `decode_tree` does.

    What is the same in both, which is nearly all of it, is compared as bytes and never decoded.
    """
    mine, theirs = _records(left), _records(right)
    same = set(mine).intersection(theirs)
    return tuple(_checked([record for record in side if record not in same]) for side in (mine, theirs))


def _records(data: bytes) -> list[bytes]:
    if data[:2] != _TREE_MAGIC:
        raise damaged("A directory's record is of no known kind")
    found: list[bytes] = []
    unpack, head, start, total = _ENTRY.unpack_from, _ENTRY.size, 2, len(data)
    while start < total:
        if start + head > total:
            raise damaged("A directory's record is torn")
        _, _, name_size, _, xattrs_size, body_size = unpack(data, start)
        end = start + head + name_size + xattrs_size + body_size
        if end > total:
            raise damaged("A directory's record is torn")
        found.append(data[start:end])
        start = end
    return found


def decode_entry(data: bytes) -> Entry:
    """The one entry that `Entry.encode` made."""
    kind, mode, name_size, mtime_ns, xattrs_size, _ = _ENTRY.unpack_from(data)
    xattrs_at = _ENTRY.size + name_size
    body_at = xattrs_at + xattrs_size
    return Entry(kind, data[_ENTRY.size : xattrs_at], mode, mtime_ns, data[xattrs_at:body_at], data[body_at:])


def _checked(records: list[bytes]) -> list[Entry]:
    entries = [decode_entry(record) for record in records]
    before = (False, b"")
    for kind, name, mode, _, _, body in entries:
        key = (kind == DIRECTORY, name)
        if key <= before:
            raise damaged("A directory names an entry twice or out of order")
        before = key
        if len(name) > 255 or name in _NO_NAMES or b"/" in name or b"\0" in name:
            raise damaged(f"A directory holds the name {name[:80]!r}, which leads elsewhere")
        if kind not in _KINDS or mode > 0o7777:
            raise damaged(f"{name[:80]!r} is of a kind that no checkpoint holds")
        if kind == DIRECTORY and len(body) != ID_BYTES:
            raise damaged(f"The directory {name[:80]!r} has no tree")
        if kind == LINK and (not body or b"\0" in body):
            raise damaged(f"The link {name[:80]!r} has no target")
    if len({entry.name for entry in entries}) != len(entries):
        raise damaged("A directory names an entry twice")
    return entries


def encode_xattrs(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([_XATTR.pack(len(name), len(value)) + name + value for name, value in sorted(pairs)])


def decode_xattrs(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    while offset < len(data):
        if offset + _XATTR.size > len(data):
            raise damaged("A file's extended attributes are torn")
        name_size, value_size = _XATTR.unpack_from(data, offset)
        start = offset + _XATTR.size
        offset = start + name_size + value_size
        if offset > len(data):
            raise damaged("A file's extended attributes are torn")
        yield data[start : start + name_size], data[start + name_size : offset]
