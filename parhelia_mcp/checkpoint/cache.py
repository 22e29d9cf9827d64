"""What the last checkpoint saw of each directory, so that the next one reads only what changed.

A file is trusted unread when device, inode, size, both times and mode are as they were, and its times are older than
the start of the scan that saw it: a file written in the same tick could change again without a trace. Losing this file
costs time only, and a damaged one is not used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from parhelia_mcp import files
from parhelia_mcp.checkpoint.format import decode_tree, encode_tree

STAMP = struct.Struct("<QQQqqII")  # device, inode, size, mtime, ctime, mode, links
NEVER = bytes(STAMP.size)
_MAGIC = b"PARHCACHE4"
_RECORD = struct.Struct(
    "<HI32sIIIIQ"
)  # sizes of path and attributes, tree, its pack, sizes of key and part, lives, bytes
_LIVE = struct.Struct("<IQ")


class Seen(NamedTuple):
    """One directory: its own stamp and attributes, `key` (stamp + name of each file in order), `part` (their entries)."""

    stamp: bytes
    xattrs: bytes
    tree: bytes
    tree_pack: int
    key: bytes
    part: bytes
    live: tuple[tuple[int, int], ...]  # (number of a pack, bytes of these files in it)
    size: int  # bytes of these files


class Cache(NamedTuple):
    """`packs` are the names that the numbers in `live` mean."""

    packs: tuple[str, ...]
    directories: dict[bytes, Seen]


EMPTY = Cache((), {})


def read(path: Path, packs: tuple[str, ...], key_name: bytes) -> Cache:
    """What a checkpoint that needs exactly `packs` left, or nothing: all that it trusts must lie in them."""
    from blake3 import blake3

    try:
        data = path.read_bytes()
    except OSError:
        return EMPTY
    head = len(_MAGIC) + 32
    if data[: len(_MAGIC)] != _MAGIC or blake3(memoryview(data)[head:]).digest() != data[len(_MAGIC) : head]:
        return EMPTY
    if data[head : head + 8] != key_name:
        return EMPTY
    at = head + 8
    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    found = tuple(data[start : start + 64].decode() for start in range(at, at + 64 * count, 64))
    if found != packs:
        return EMPTY
    return Cache(found, dict(_records(data, at + 64 * count)))


def _records(data: bytes, at: int) -> Iterable[tuple[bytes, Seen]]:
    total = len(data)
    while at < total:
        path_size, xattrs_size, tree, tree_pack, key_size, part_size, lives, size = _RECORD.unpack_from(data, at)
        a = at + _RECORD.size
        b = a + path_size
        c = b + STAMP.size
        d = c + xattrs_size
        e = d + key_size
        f = e + part_size
        at = f + lives * _LIVE.size
        live = tuple(_LIVE.iter_unpack(data[f:at]))
        yield data[a:b], Seen(data[b:c], data[c:d], tree, tree_pack, data[d:e], data[e:f], live, size)


def write(path: Path, cache: Cache, key_name: bytes) -> None:
    from blake3 import blake3

    pieces = [key_name, struct.pack("<I", len(cache.packs))]
    pieces += [name.encode() for name in cache.packs]
    for name, seen in cache.directories.items():
        if len(name) > 0xFFFF:
            continue
        sizes = (len(seen.key), len(seen.part), len(seen.live), seen.size)
        head = (len(name), len(seen.xattrs), seen.tree, seen.tree_pack, *sizes)
        pieces += [_RECORD.pack(*head), name, seen.stamp, seen.xattrs, seen.key, seen.part]
        pieces += [_LIVE.pack(*live) for live in seen.live]
    body = b"".join(pieces)
    files.replace(path, _MAGIC + blake3(body).digest() + body)


def by_name(seen: Seen) -> dict[bytes, tuple[bytes, bytes]]:
    """Each file's stamp and encoded entry by name, of one directory."""
    found: dict[bytes, tuple[bytes, bytes]] = {}
    at = 0
    for entry in decode_tree(encode_tree(seen.part, b"")):
        stamp = seen.key[at : at + STAMP.size]
        at += STAMP.size + len(entry.name) + 1
        found[entry.name] = (stamp, entry.encode())
    return found
