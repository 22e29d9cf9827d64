"""Checkpoints, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parhelia_mcp.model import moment, timestamp
from parhelia_mcp.plain import clean, many, size
from parhelia_mcp.render.text import age, colour, money, pairs, state, table

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def checkpoints(result: verbs.checkpoint.ListResult) -> str:
    rows = [
        (
            one.checkpoint_id,
            one.session_id or "-",
            age(one.created_at),
            one.trigger,
            str(one.files),
            size(one.bytes),
            _expiry(one),
            _kept(one),
        )
        for one in result.checkpoints
    ]
    text = (
        table(
            ("CHECKPOINT", "SESSION", "AGE", "WHY", "FILES", "SIZE", "EXPIRES", "STATE"),
            rows,
            spare=(4, 5, 6, 3, 2),
            right=(2, 4, 5),
        )
        or "no checkpoints"
    )
    return text + "".join(f"\n{colour('damaged', 31)}: {name}" for name in result.damaged)


def _kept(one: verbs.checkpoint.Row) -> str:
    return ("consistent" if one.consistent else f"in a turn{f' ({one.pending_tool})' if one.pending_tool else ''}") + (
        ", partial" if one.partial else ""
    )


def _expiry(one: verbs.checkpoint.Row) -> str:
    """When retention may take it, and whether that is later than for periodic ones."""
    if one.pinned:
        return "never (pinned)"
    if one.expires_at is None:
        return "-"
    longer = " (kept longer)" if one.kept_longer else ""
    return f"in {age(timestamp(), moment(one.expires_at))}{longer}"


def checkpoint(one: verbs.checkpoint.Row) -> str:
    lines = pairs(
        [
            ("checkpoint", one.checkpoint_id),
            ("session", one.session_id),
            ("taken", f"{one.created_at} ({age(one.created_at)} ago), {one.trigger}"),
            ("state", _kept(one)),
            ("holds", f"{many(one.files, 'file')}, {size(one.bytes)} ({size(one.stored_bytes)} stored)"),
            ("parent", one.parent),
            ("expires", f"{one.expires_at}, {_expiry(one)}" if one.expires_at else None),
            ("turns", str(one.turns) if one.turns else None),
            *_inside(one),
        ]
    )
    skipped = [f"skipped: {each['path']} ({each['why']})" for each in one.skipped]
    secrets = [f"looks like a secret, kept: {path}" for path in getattr(one, "sensitive", ())]
    screen = getattr(one, "screen", None)
    shown = ["screen:", *(f"  {line}" for line in screen.splitlines())] if screen else []
    return "\n".join([lines, *skipped, *(f"changed while read: {path}" for path in one.changed), *secrets, *shown])


def _inside(one: verbs.checkpoint.Row) -> list[tuple[str, str | None]]:
    """What is said of a checkpoint's contents, where somebody asked for one alone."""
    manifest = getattr(one, "manifest", None)
    if manifest is None:
        return []
    agent, counters, talk = manifest["agent"], manifest["counters"], one.conversation
    who = "Claude Code" if agent["kind"] == "claude" else agent["kind"]
    torn = "" if talk is None or talk.whole else ", the last one torn"
    return [
        ("agent", f"{who} {agent['version'] or ''}".strip() + (f" in {agent['cwd']}" if agent["cwd"] else "")),
        ("conversation", f"{talk.path}, {talk.lines} lines{torn}" if talk else None),
        ("tasks", str(one.tasks) if one.tasks else None),
        ("tokens", f"{counters['tokens']}, {money(counters['usd'])}" if counters["tokens"] else None),
        ("snapshot", f"{one.snapshot.image} on {one.snapshot.provider}" if one.snapshot else None),
        ("environment", " ".join(manifest["env_names"])),
        ("locked", one.locked),
    ]


def difference(result: verbs.checkpoint.DiffResult, *, stat: bool) -> str:
    if result.text is not None:
        return result.text or "no difference"

    def sized(path: str) -> str:
        before, after = result.sizes.get(path, (0, 0))
        return f"  {size(before)} -> {size(after)}" if stat else ""

    marks = (("+", result.added), ("~", result.changed), ("-", result.removed))
    lines = [f"{mark} {path}{sized(path)}" for mark, paths in marks for path in paths]
    return "\n".join(
        [*lines, f"{len(result.added)} added, {len(result.changed)} changed, {len(result.removed)} removed"]
    )


def verified(result: verbs.checkpoint.VerifyResult) -> str:
    if result.ok:
        return f"{result.checkpoint_id}  {state('ok')}: every byte is right"
    return "\n".join([f"{result.checkpoint_id}  {state('broken')}", *result.problems])


def removed(result: verbs.checkpoint.Removed) -> str:
    names = ", ".join(result.removed) or "nothing"
    return f"removed {names}; {result.packs} packs, {size(result.bytes)} given back"


def resumed(result: verbs.resume.Result) -> str:
    if result.target:
        lines = [f"{result.checkpoint_id} restored into {result.target}: {many(result.files, 'file')}"]
        lines += [f"saved what was there: {result.saved}"] if result.saved else []
        lines += [f"without setuid bits: {', '.join(result.lowered)}"] if result.lowered else []
        return "\n".join([*lines, result.note or "", f"next: {result.next}"])
    head = f"{result.session_id}  {state(result.state)}  from {result.checkpoint_id}  reserved {money(result.reserved_usd)}"
    return "\n".join(filter(None, (head, clean(result.note or ""), f"next: {result.next}")))
