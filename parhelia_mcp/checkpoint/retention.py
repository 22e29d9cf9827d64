"""Removes checkpoints: those named, those that are old or too many, and then the packs that nobody lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from parhelia_mcp import failpoint, files
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.store import Store, load, survey, writing
from parhelia_mcp.errors import Corrupted, Refused
from parhelia_mcp.model import moment, timestamp
from parhelia_mcp.spec import CheckpointPolicy

KEPT_LONGER = frozenset({"complete", "error", "shutdown", "manual", "safety"})
LONGER = 4  # times the days of the others


@dataclass(frozen=True, slots=True)
class Removed:
    checkpoints: tuple[str, ...]
    packs: int
    bytes: int


def expires_at(trigger: str, created: datetime, policy: CheckpointPolicy) -> str:
    """When retention may remove a checkpoint; final, error, safety and manual ones are kept 4 times as long."""
    days = policy.retention_days * (LONGER if trigger in KEPT_LONGER else 1)
    return timestamp(created + timedelta(days=days))


def delete(store: Store, ids: Iterable[str], *, pinned: bool = False, wait_s: float = 30.0) -> Removed:
    """Remove checkpoints for good and what only they needed; all ids are looked up before one is removed.

    Pinned ones are refused unless `pinned`. Raises NotFound, Refused, Busy, LocalFault.
    """
    wanted = list(ids)
    with writing(store, wait_s=wait_s, what="Deleting checkpoints"):
        chosen = {one.hash: one for one in (load(store, name) for name in wanted)}
        held = [one.id for one in chosen.values() if one.pinned and not pinned]
        if held:
            raise Refused("pinned", f"{', '.join(held)} pinned; nothing was removed.", "leave them out")
        return _remove(store, list(chosen.values()))


def gc(store: Store, *, wait_s: float = 30.0) -> Removed:
    """Remove drafts of killed writers and packs that no checkpoint lists. Raises Corrupted where a manifest is
    damaged, because its packs are not known then: nothing is removed.
    """
    with writing(store, wait_s=wait_s, what="Collecting garbage"):
        return _remove(store, [])


def retain(store: Store, policy: CheckpointPolicy, now: datetime, *, wait_s: float = 30.0) -> Removed:
    """Remove what the policy no longer keeps: expired ones, and the oldest above `max_per_session`.

    Never removed: pinned ones and the newest of each session. Final, error, safety and manual ones do not count
    towards `max_per_session` and expire later.
    """
    with writing(store, wait_s=wait_s, what="Applying retention"):
        known, _ = survey(store)
        return _remove(store, _outlived(known, policy, now))


def _outlived(known: list[Manifest], policy: CheckpointPolicy, now: datetime) -> list[Manifest]:
    newest = {one.session: one.hash for one in known}
    counted: dict[str | None, int] = {}
    gone = []
    for one in reversed(known):
        counts = one.trigger not in KEPT_LONGER and not one.pinned
        if counts:
            counted[one.session] = counted.get(one.session, 0) + 1
        if one.pinned or newest[one.session] == one.hash:
            continue
        expiry = one.expires_at or expires_at(one.trigger, moment(one.created_at), policy)
        if moment(expiry) <= now or (counts and counted[one.session] > policy.max_per_session):
            gone.append(one)
    return gone


def _remove(store: Store, chosen: list[Manifest]) -> Removed:
    for one in chosen:
        failpoint.reach("checkpoint.delete")
        (store.manifests / f"{one.hash}.json").unlink()
    if chosen:
        files.sync_dir(store.manifests)
    known, broken = survey(store)
    if broken:
        raise Corrupted(
            "damaged-checkpoint",
            f"The manifest of cp-{broken[0][:8]} is damaged, so its packs are not known; no pack was removed.",
            f"rm {store.manifests / broken[0]}.json",
        )
    needed = {pack.hash for one in known for pack in one.packs}
    count = size = 0
    for path in store.packs.iterdir():
        if path.name.partition(".")[0] in needed:
            continue
        failpoint.reach("checkpoint.gc")
        count += path.suffix == ".pack"
        size += path.stat().st_size
        path.unlink()
    return Removed(tuple(one.id for one in chosen), count, size)
