"""Finds every byte of a checkpoint that is not what was written."""

from __future__ import annotations

import os

from parhelia_mcp.checkpoint import trees
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.packs import PackRef
from parhelia_mcp.checkpoint.scan import Progress
from parhelia_mcp.checkpoint.store import Store, list_all, load, reader
from parhelia_mcp.errors import Corrupted


def verify(store: Store, checkpoint: Manifest | str, progress: Progress | None = None) -> list[str]:
    """What is wrong with a checkpoint, as sentences; empty when every byte it needs is there and right.

    A pack's name is the hash of all its bytes, so each pack is hashed whole; then every tree is read and each piece
    found. A damaged pack is marked, so that the next checkpoint stores again what it held.
    """
    problems: list[str] = []
    try:
        if isinstance(checkpoint, str):
            checkpoint = load(store, checkpoint)
        problems = damaged_packs(store, checkpoint, progress)
        if not problems:
            with reader(store, checkpoint) as opened:
                trees.check(opened, checkpoint)
    except Corrupted as problem:
        problems.append(problem.message)
    return problems


def damaged_packs(store: Store, checkpoint: Manifest, progress: Progress | None = None) -> list[str]:
    """What is wrong with the packs of a checkpoint, each hashed whole."""
    problems, read = [], 0
    for number, pack in enumerate(checkpoint.packs, 1):
        wrong = _pack(store, pack)
        read += pack.bytes
        if progress:
            progress(number, read)
        if wrong:
            problems.append(wrong)
            _mark(store, pack)
    return problems


def require(store: Store, checkpoint: Manifest) -> None:
    """Raise Corrupted with the first problem and the newest checkpoint that is whole; nothing falls back to it."""
    problems = verify(store, checkpoint)
    if problems:
        raise corrupted(store, checkpoint, problems[0])


def corrupted(store: Store, checkpoint: Manifest, problem: str) -> Corrupted:
    good, wrong = last_good(store, checkpoint), f"Corrupted checkpoint {checkpoint.id}: {problem} Nothing was written."
    if good is None:
        return Corrupted("damaged-checkpoint", f"{wrong} No other checkpoint is whole.", "parhelia checkpoint list")
    said = f"{wrong} The newest checkpoint that is whole is {good.id} of {good.created_at}."
    return Corrupted("damaged-checkpoint", said, f"parhelia checkpoint rollback {good.id}")


def last_good(store: Store, apart_from: Manifest | None = None) -> Manifest | None:
    """The newest checkpoint without a problem."""
    for one in reversed(list_all(store)):
        if (apart_from is None or one.hash != apart_from.hash) and not verify(store, one):
            return one
    return None


def _pack(store: Store, pack: PackRef) -> str | None:
    from blake3 import blake3

    what = f"Pack {pack.name[:12]}"
    try:
        descriptor = os.open(store.packs / pack.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return f"{what} is missing."
    except OSError as problem:
        return f"{what} cannot be opened ({problem.strerror})."
    try:
        hashed, size = blake3(), 0
        while block := os.read(descriptor, 4 << 20):
            hashed.update(block)
            size += len(block)
    except OSError as problem:
        return f"{what} cannot be read ({problem.strerror})."
    finally:
        os.close(descriptor)
    if size != pack.bytes:
        return f"{what} has {size} bytes instead of {pack.bytes}."
    return None if hashed.hexdigest() == pack.hash else f"{what} does not match its hash."


def _mark(store: Store, pack: PackRef) -> None:
    try:
        (store.packs / pack.name).with_suffix(".bad").touch(mode=0o600)
    except OSError:
        return  # a store that cannot be written has no next checkpoint either
