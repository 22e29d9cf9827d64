"""Looks into checkpoints: what changed between two, one file, a whole copy to take elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from parhelia_mcp import files
from parhelia_mcp.checkpoint import format as form
from parhelia_mcp.checkpoint import trees
from parhelia_mcp.checkpoint.faults import local_faults
from parhelia_mcp.checkpoint.format import Entry
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.packs import Reader
from parhelia_mcp.checkpoint.store import Store, load, reader
from parhelia_mcp.checkpoint.verify import require
from parhelia_mcp.errors import NotFound, Refused, Usage

_MOST_TEXT = 4 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Paths from the part on, sorted, undecodable bytes as surrogates; a directory that came or went counts as one."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # path -> bytes before and after


def diff(store: Store, before: Manifest | str, after: Manifest | str) -> Difference:
    """What is other in `after`: contents, kinds, modes, targets and attributes; times alone do not count."""
    first, second = _both(store, before, after)
    found: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
    sizes: dict[str, tuple[int, int]] = {}
    with reader(store, first, second) as opened:
        for path, left, right in _pairs(opened, bytes.fromhex(first.tree), bytes.fromhex(second.tree)):
            name = os.fsdecode(path)
            kind = "added" if left is None else "removed" if right is None else "changed"
            found[kind].append(name)
            sizes[name] = (_size(left), _size(right))
    return Difference(*(tuple(sorted(found[kind])) for kind in ("added", "changed", "removed")), sizes)


def _both(store: Store, before: Manifest | str, after: Manifest | str) -> tuple[Manifest, Manifest]:
    first = load(store, before) if isinstance(before, str) else before
    return first, load(store, after) if isinstance(after, str) else after


def _pairs(opened: Reader, left: bytes, right: bytes) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    stack = [(b"", left, right)]
    while stack:
        path, one, other = stack.pop()
        if one == other:
            continue
        for name, a, b in _unlike(opened, one, other):
            below = path + b"/" + name if path else name
            if a is None or b is None or _differs(a, b):
                yield below, a, b
            folders = [entry.body if entry and entry.kind == form.DIRECTORY else b"" for entry in (a, b)]
            if any(folders):
                stack.append((below, *folders))


def _unlike(opened: Reader, one: bytes, other: bytes) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    """The names that are not the same in two directories, with the entry on each side; no tree is an empty one."""
    sides = (opened.read(tree, tree=True) if tree else form.encode_tree(b"", b"") for tree in (one, other))
    mine, theirs = ({entry.name: entry for entry in side} for side in form.unlike(*sides))
    for name in mine.keys() | theirs.keys():
        yield name, mine.get(name), theirs.get(name)


def _differs(a: Entry, b: Entry) -> bool:
    if (a.kind, a.mode, a.xattrs) != (b.kind, b.mode, b.xattrs):
        return True
    if a.kind != form.FILE or a.body == b.body:
        return a.kind == form.LINK and a.body != b.body
    return form.decode_content(a.body).records != form.decode_content(b.body).records


def _size(entry: Entry | None) -> int:
    return form.decode_content(entry.body).size if entry and entry.kind == form.FILE else 0


def read_file(store: Store, checkpoint: Manifest | str, path: str, *, limit: int | None = None) -> bytes:
    """The bytes of one file (or a link's target), checked; at most `limit`. Raises NotFound, Usage for a directory."""
    if isinstance(checkpoint, str):
        checkpoint = load(store, checkpoint)
    with reader(store, checkpoint) as opened:
        entry = trees.find(opened, checkpoint, path)
        if entry.kind == form.LINK:
            return entry.body
        if entry.kind != form.FILE:
            raise Usage("not-a-file", f"{path[:200]!r} is not a file in {checkpoint.id}.", "name a file in it")
        found, held = [], 0
        for length, data in trees.data(opened, form.decode_content(entry.body)):
            wanted = length if limit is None else min(length, limit - held)
            found.append(bytes(wanted) if data is None else data[:wanted])
            held += wanted
            if limit is not None and held >= limit:
                break
        return b"".join(found)


def text_diff(store: Store, before: Manifest | str, after: Manifest | str, path: str) -> str:
    """A unified diff of one path; one line that says so where a side is binary or over 4 MiB."""
    import difflib

    first, second = _both(store, before, after)
    left, right = _side(store, first, path), _side(store, second, path)
    if left is None and right is None:
        raise NotFound(
            "no-such-path", f"Neither checkpoint holds {path[:200]!r}.", f"parhelia checkpoint show {first.id}"
        )
    sides = [b"" if side is None else side for side in (left, right)]
    if sides[0] == sides[1]:
        return ""
    if any(len(side) > _MOST_TEXT or b"\0" in side for side in sides):
        return f"Binary or large: {path} differs\n"
    texts = [side.decode(errors="replace").splitlines(keepends=True) for side in sides]
    names = (
        f"{first.id}/{path}" if left is not None else "/dev/null",
        f"{second.id}/{path}" if right is not None else "/dev/null",
    )
    lines = difflib.unified_diff(*texts, *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _side(store: Store, checkpoint: Manifest, path: str) -> bytes | None:
    try:
        return read_file(store, checkpoint, path, limit=_MOST_TEXT + 1)
    except NotFound:
        return None


def export(store: Store, checkpoint: Manifest | str, target: Path) -> Path:
    """Make `target` a store of its own that holds only this checkpoint; raises Refused where it holds something."""
    if isinstance(checkpoint, str):
        checkpoint = load(store, checkpoint)
    require(store, checkpoint)
    if target.exists() and any(target.iterdir()):
        raise Refused("target-not-empty", f"{target} is not empty.", "name a new directory")
    with local_faults(f"Exporting {checkpoint.id}"):
        copy = Store(target)
        for folder in (target, copy.packs, copy.manifests):
            files.private_dir(folder)
        for pack in checkpoint.packs:
            shutil.copyfile(store.packs / pack.name, copy.packs / pack.name)
            (copy.packs / pack.name).chmod(0o600)
        files.replace(copy.manifests / f"{checkpoint.hash}.json", checkpoint.encode(), durable=True)
    return target
