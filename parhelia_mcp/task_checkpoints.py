"""The checkpoints of tasks as this machine sees them: local ones where they lie, remote ones through a mirror.

Packs and manifests never change once they have their name, so mirroring is copying what is missing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from parhelia_mcp import credentials, files, follow, snapshots
from parhelia_mcp.checkpoint import retention
from parhelia_mcp.checkpoint import store as stores
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.store import Store
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, NotFound, Usage
from parhelia_mcp.model import Doing
from parhelia_mcp.store import Session

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def of_task(ctx: Context, task: str) -> Store:
    """The store of a task, readable once it has been `mirrored`; empty where nothing was kept yet."""
    return Store(ctx.task_dir(task) / "checkpoints", credentials.checkpoint_key(ctx))


def mirrored(ctx: Context, session: Session, *, packs: bool) -> Store:
    """The store of a session's task with everything that was kept; `packs` brings the content too.

    Raises Unreachable where a remote one cannot be asked.
    """
    store = of_task(ctx, session.task)
    if ctx.provider(session.provider).properties.local_disk or session.handle is None:
        return store
    sandbox = follow.open_sandbox(ctx, session)
    for folder in ("manifests", "packs") if packs else ("manifests",):
        here = files.private_dir(store.path / folder)
        names = [name for name in sandbox.names(f"checkpoints/{folder}") if not name.startswith(".")]
        for name in names:
            if not (here / name).exists():
                ctx.tell(Doing(f"fetching the checkpoints, {names.index(name) + 1} of {len(names)} parts"))
                sandbox.get(f"checkpoints/{folder}/{name}", here / name, deadline=600)
        if folder == "manifests" and names:
            for left in {path.name for path in here.iterdir()} - set(names):
                (here / left).unlink()
    return store


def removed(ctx: Context, session: Session, names: list[str]) -> retention.Removed:
    """Remove checkpoints of the session's task where they lie, with their snapshots and what only they needed.

    Raises Busy `session-lives` for remote ones that a session may still add to, Unreachable where they cannot be asked
    for: what is there then stays, and comes back here with the next look.
    """
    store = of_task(ctx, session.task)
    if ctx.provider(session.provider).properties.local_disk or session.handle is None:
        return retention.delete(store, names)
    if session.live:
        what = f"{session.id} is {session.state} and may add to them; nothing was removed."
        raise Busy("session-lives", what, f"parhelia session kill {session.task}, or wait for its end")
    mirrored(ctx, session, packs=False)
    chosen = [stores.load(store, name) for name in names]
    done = retention.delete(store, names)
    sandbox = follow.open_sandbox(ctx, session)
    for one in chosen:
        snapshots.discard(ctx, one.hash)
        sandbox.remove(f"checkpoints/manifests/{one.hash}.json")
    needed = {pack.hash for kept in stores.list_all(store) for pack in kept.packs}
    left = [name for name in sandbox.names("checkpoints/packs") if name.partition(".")[0] not in needed]
    for name in left:
        sandbox.remove(f"checkpoints/packs/{name}")
    return replace(done, packs=sum(name.endswith(".pack") for name in left))


def copied(ctx: Context, session: Session, chosen: Manifest, task: str) -> list[tuple[str, str]]:
    """Give another task a store of its own with one checkpoint of this session's task; its files, as sources.

    The original is not touched.
    """
    from parhelia_mcp.checkpoint.compare import export

    home = ctx.task_dir(task)
    export(mirrored(ctx, session, packs=True), chosen, home / "checkpoints")
    kept = sorted(path for path in (home / "checkpoints").rglob("*") if path.is_file())
    return [(str(path.relative_to(home)), str(path)) for path in kept]


def find(ctx: Context, text: str) -> tuple[Session, Manifest]:
    """The checkpoint that a person means and the newest session of its task.

    Raises NotFound `no-such-checkpoint`, Usage `ambiguous-id`, Corrupted.
    """
    digits = text.strip().removeprefix("cp-")
    if not re.fullmatch(r"[0-9a-f]{4,64}", digits):
        raise Usage("bad-id", f"{text[:80]!r} is not the id of a checkpoint (cp-xxxxxxxx).", "parhelia checkpoint list")
    found = {path.stem: path.parents[2].name for path in ctx.home.glob(f"tasks/*/checkpoints/manifests/{digits}*.json")}
    if not found:
        raise NotFound(
            "no-such-checkpoint", f"Checkpoint not found: {text[:80]}.{_near(ctx, digits)}", "parhelia checkpoint list"
        )
    if len(found) > 1:
        named = ", ".join(f"cp-{name[:12]}" for name in sorted(found)[:5])
        raise Usage("ambiguous-id", f"{text[:80]!r} may be {named}; nothing was done.", "give more of it")
    name, task = found.popitem()
    return ctx.store.newest(task), stores.load(of_task(ctx, task), name)


def _near(ctx: Context, digits: str) -> str:
    import difflib

    known = {path.stem[: len(digits)]: path.stem for path in ctx.home.glob("tasks/*/checkpoints/manifests/*.json")}
    near = difflib.get_close_matches(digits, known, n=1, cutoff=0.7)
    return f" Did you mean cp-{known[near[0]][:8]}?" if near else ""


def of_session(ctx: Context, session: Session) -> list[Manifest]:
    """The readable checkpoints of one task up to this session, oldest first."""
    kept = stores.list_all(of_task(ctx, session.task))
    return [one for one in kept if one.session is None or _number(one.session) <= session.number]


def newest(ctx: Context, session: Session) -> Manifest:
    """The newest checkpoint of a task up to this session that verifies. Raises NotFound `no-checkpoint`."""
    from parhelia_mcp.checkpoint.verify import verify

    store = mirrored(ctx, session, packs=True)
    for one in reversed(of_session(ctx, session)):
        if one.trigger != "safety" and not verify(store, one):  # safety keeps a directory of the user's
            return one
    raise NotFound(
        "no-checkpoint",
        f"{session.task} has no checkpoint that is whole.",
        f"parhelia recover {session.task} --action restart",
    )


def require(ctx: Context, session: Session, chosen: Manifest) -> None:
    """Raise Corrupted, naming the last good one, unless every byte of the checkpoint is there and right."""
    from parhelia_mcp.checkpoint import verify

    verify.require(mirrored(ctx, session, packs=True), chosen)


def tasks(ctx: Context) -> list[str]:
    """Every task that has a store here."""
    return sorted(path.parents[1].name for path in ctx.home.glob("tasks/*/checkpoints/manifests"))


def duration(text: str) -> timedelta:
    """`7d`, `12h`, `30m` as time. Raises Usage `bad-duration`."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhdw])", text.strip())
    if not match:
        raise Usage("bad-duration", f"{text[:40]!r} is not a duration; nothing was done.", "7d, 12h or 30m")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def _number(session: str) -> int:
    return int(session.rpartition(".")[2])
