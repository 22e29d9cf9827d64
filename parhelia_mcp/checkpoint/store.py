"""A directory of checkpoints: finding them, and who may write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from parhelia_mcp import files, locks
from parhelia_mcp.checkpoint import manifest as manifests
from parhelia_mcp.checkpoint.faults import damaged, local_faults
from parhelia_mcp.checkpoint.manifest import HASH, Manifest
from parhelia_mcp.checkpoint.packs import Reader
from parhelia_mcp.errors import Corrupted, NotFound, Usage
from parhelia_mcp.model import moment


@dataclass(frozen=True, slots=True)
class Store:
    """Where the checkpoints of one task lie; `key` (32 bytes) opens and makes encrypted ones."""

    path: Path
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is not None and len(self.key) != 32:
            raise Usage(
                "bad-key", f"A checkpoint key has 32 bytes, this one {len(self.key)}.", "head -c32 /dev/urandom"
            )

    @property
    def packs(self) -> Path:
        return self.path / "packs"

    @property
    def manifests(self) -> Path:
        return self.path / "manifests"


@contextmanager
def writing(store: Store, *, wait_s: float, what: str) -> Iterator[None]:
    """Be the only writer of the store, with the litter of dead ones removed; raises Busy, LocalFault."""
    with local_faults(what):
        for folder in (store.path, store.packs, store.manifests):
            files.private_dir(folder)
        with locks.exclusive(store.path / "lock", wait_s=wait_s, what=f"The checkpoint store {store.path}"):
            for folder in (store.packs, store.manifests):
                for draft in folder.glob(".*"):
                    draft.unlink()
            yield


def _names(store: Store) -> list[str]:
    try:
        listing = [path.name for path in store.manifests.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name[:-5] for name in listing if name.endswith(".json") and not name.startswith("."))


def _load(store: Store, name: str) -> Manifest:
    if not HASH.fullmatch(name):
        raise damaged(f"The manifest {name[:80]!r} is not called by a hash")
    path = store.manifests / f"{name}.json"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(
            "no-such-checkpoint", f"There is no checkpoint cp-{name[:8]}.", "parhelia checkpoint list"
        ) from None
    except OSError as problem:
        raise damaged(f"The manifest of cp-{name[:8]} cannot be opened ({problem.strerror})") from None
    try:
        data = b""
        while len(data) <= manifests.MAX_BYTES and (more := os.read(descriptor, 1 << 20)):
            data += more
    except OSError as problem:
        raise damaged(f"The manifest of cp-{name[:8]} cannot be read ({problem.strerror})") from None
    finally:
        os.close(descriptor)
    return manifests.decode(data, name)


def survey(store: Store) -> tuple[list[Manifest], list[str]]:
    """All checkpoints, oldest first, and the file names of manifests that are damaged."""
    found, broken = [], []
    for name in _names(store):
        try:
            found.append(_load(store, name))
        except Corrupted:
            broken.append(name)
        except NotFound:
            continue  # deleted since it was listed
    return sorted(found, key=lambda one: (moment(one.created_at), one.hash)), broken


def list_all(store: Store) -> list[Manifest]:
    """Every readable checkpoint, oldest first; `survey` also names the damaged ones."""
    return survey(store)[0]


def load(store: Store, wanted: str) -> Manifest:
    """The checkpoint that an id, a prefix of one (4 digits or more) or a whole hash means.

    Raises NotFound, Usage `ambiguous-id`, or Corrupted where its manifest is damaged.
    """
    digits = wanted.removeprefix("cp-")
    if len(digits) < 4 or digits.strip("0123456789abcdef"):
        raise Usage("bad-id", f"{wanted[:80]!r} is not a checkpoint id.", "parhelia checkpoint list")
    found = [name for name in _names(store) if name.startswith(digits)]
    if not found:
        raise NotFound("no-such-checkpoint", f"There is no checkpoint {wanted[:80]}.", "parhelia checkpoint list")
    if len(found) > 1:
        named = ", ".join(f"cp-{name[:12]}" for name in found[:5])
        raise Usage("ambiguous-id", f"{wanted[:80]} means {len(found)} checkpoints: {named}.", "give more of it")
    return _load(store, found[0])


def reader(store: Store, *checkpoints: Manifest) -> Reader:
    """The packs of these checkpoints, each opened once; raises Corrupted, or NotFound where one was deleted meanwhile."""
    refs = dict.fromkeys(ref for one in checkpoints for ref in one.packs)
    try:
        return Reader(store.packs, refs, store.key)
    except Corrupted:
        for one in checkpoints:
            _load(store, one.hash)
        raise
