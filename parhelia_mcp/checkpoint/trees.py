"""What a checkpoint holds, read from its trees without restoring anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from parhelia_mcp.checkpoint import format as form
from parhelia_mcp.checkpoint.faults import damaged
from parhelia_mcp.checkpoint.format import Content, Entry
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.packs import Reader
from parhelia_mcp.errors import NotFound

_MOST_ENTRIES = 20_000_000


def entries(reader: Reader, tree: bytes) -> list[Entry]:
    return form.decode_tree(reader.read(tree, tree=True))


def walk(reader: Reader, tree: bytes, base: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
    """Every entry below a tree with its path, a directory before what is in it."""
    stack = [(base, tree, 0)]
    while stack:
        path, name, depth = stack.pop()
        if depth > form.MAX_DEPTH:
            raise damaged("Directories are nested without end")
        for entry in entries(reader, name):
            below = path + b"/" + entry.name if path else entry.name
            yield below, entry
            if entry.kind == form.DIRECTORY:
                stack.append((below, entry.body, depth + 1))


def pieces(reader: Reader, content: Content) -> Iterator[tuple[int, bytes]]:
    """The pieces of a file in order, with each length as the index of its pack has it."""
    for length, name in content.records:
        if not content.listed:
            yield _piece(reader, length, name)
            continue
        records = form.decode_records(reader.read(name))
        if sum(size for size, _ in records) != length:
            raise damaged("A list of file pieces does not cover what it should")
        for size, piece in records:
            yield _piece(reader, size, piece)


def _piece(reader: Reader, length: int, name: bytes) -> tuple[int, bytes]:
    if name != form.HOLE and reader.length(name) != length:
        raise damaged(f"Object {name.hex()[:12]} has another length than the file that needs it says")
    return length, name


def check(reader: Reader, checkpoint: Manifest) -> None:
    """Read every tree and list, and find every piece; raises Corrupted where one is missing or a sum is wrong."""
    seen: set[bytes] = set()
    files = size = count = 0
    for _, entry in walk(reader, bytes.fromhex(checkpoint.tree)):
        count += 1
        if count > _MOST_ENTRIES or files > checkpoint.files or size > checkpoint.bytes:
            break
        if entry.xattrs:
            list(form.decode_xattrs(entry.xattrs))
        if entry.kind == form.DIRECTORY:
            continue
        files += 1
        if entry.kind == form.FILE:
            content = form.decode_content(entry.body)
            size += content.size
            if entry.body not in seen:
                seen.add(entry.body)
                for _ in pieces(reader, content):
                    pass
    if (files, size) != (checkpoint.files, checkpoint.bytes):
        raise damaged(f"{checkpoint.id} holds other files than its manifest says")


def find(reader: Reader, checkpoint: Manifest, path: str) -> Entry:
    """The entry at a path that starts with a part; raises NotFound."""
    found = Entry(form.DIRECTORY, b"", 0o700, 0, b"", bytes.fromhex(checkpoint.tree))
    for name in filter(None, os.fsencode(path).split(b"/")):
        inside = entries(reader, found.body) if found.kind == form.DIRECTORY else []
        match = [entry for entry in inside if entry.name == name]
        if not match:
            hint = f"parhelia checkpoint diff {checkpoint.id} {checkpoint.parent or checkpoint.id}"
            raise NotFound("no-such-path", f"{checkpoint.id} holds no {path[:200]!r}.", hint)
        found = match[0]
    return found


def data(reader: Reader, content: Content) -> Iterator[tuple[int, bytes | None]]:
    """A file's bytes in order, each piece checked against its hash; None is a hole of that length."""
    for length, name in pieces(reader, content):
        yield length, None if name == form.HOLE else reader.read(name)
