"""What is wrong and what was done about it, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parhelia_mcp.plain import clean, size
from parhelia_mcp.render.text import colour, money, pairs, state

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def diagnosis(found: dict[str, Any] | None) -> str:
    """The lines that a task's view ends with; nothing for a task that is well."""
    if not found:
        return ""
    head = f"{colour('diagnosis', 33)}: {found['cause']} ({found['confidence']}): {clean(found['what'])}"
    return f"{head}\nfix: {clean(found['fix'])}\nnext: {found['next']}"


def recovery(result: verbs.recovery.Result) -> str:
    lines = [
        f"{result.session_id}  {state(result.state)}",
        f"cause: {colour(result.cause, 33)} ({result.confidence}): {clean(result.what)}",
    ]
    lines += [f"  seen: {_seen(fact)}" for fact in result.evidence]
    lines += [f"  not {each['cause']}, because {clean(each['because'])}" for each in result.ruled_out]
    lines.append(f"fix: {clean(result.fix)}")
    if result.plan:
        lines.append(plan(result.plan))
    if result.did not in ("looked", "nothing"):
        lines.append(f"done: {result.did}")
    return "\n".join([*lines, f"next: {result.next}"])


def _seen(fact: dict[str, Any]) -> str:
    value = f"no answer ({fact['why']})" if fact.get("failed") else str(fact["value"])
    return f"{fact['name'].replace('_', ' ')} = {clean(value)}   [{fact['source']}, {fact['at']}]"


def plan(what: verbs.recovery.Plan) -> str:
    sizes = ", ".join(
        part
        for part in (
            f"{what.memory_gb:g} GiB" if what.memory_gb else None,
            what.gpu and f"GPU {what.gpu}",
            what.region and f"region {what.region}",
        )
        if part
    )
    return pairs(
        [
            ("plan", what.action + (f" from {what.from_checkpoint}" if what.from_checkpoint else "")),
            ("kept", what.kept),
            ("lost", what.lost),
            ("costs", f"at most {money(what.cost_usd)}"),
            ("with", sizes or None),
        ]
    )


def choices(actions: list[str]) -> str:
    """What a person can choose from, numbered."""
    words = {
        "resume": "go on from the newest checkpoint that is whole",
        "restart": "start again from the files it was given",
        "kill": "end it for good; its work is kept",
    }
    numbered = [f"  {number}) {name}: {words[name]}" for number, name in enumerate(actions, 1)]
    return "\n".join([*numbered, "  0) nothing"])


def doctor(result: verbs.doctor.Result) -> str:
    lines = []
    for one in result.checks:
        lines.append(f"{state(f'{one.state:8}')} {one.name}: {clean(one.what)}")
        if one.fix:
            lines.append(f"{'':8} fix: {clean(one.fix)}")
    return "\n".join(lines)


def report(result: verbs.report.Result) -> str:
    return f"{result.path}  ({size(result.bytes)}: {', '.join(result.files)})\n{result.note}\nnext: {result.next}"


def reconciled(result: verbs.reconcile.Result) -> str:
    lines = [
        f"{one.name:<8} {'ok' if one.ok else colour('not asked', 31)}: {clean(one.what)}" for one in result.providers
    ]
    lines += [f"the damaged database is kept: {result.moved_aside}"] if result.moved_aside else []
    lines += [f"adopted {name}" for name in result.adopted]
    lines += [f"ended meanwhile: {name}" for name in result.settled]
    lines += [f"not observed: {clean(what)}" for what in result.unobserved]
    lines += [f"left over: {one.session_id} on {one.provider}: {one.why}" for one in result.leftovers]
    return "\n".join([*lines, *([f"next: {result.next}"] if result.next else ())])


def cleaned(result: verbs.cleanup.Result) -> str:
    lines = [
        f"{one.name:<8} {'ok' if one.ok else colour('not asked', 31)}: {clean(one.what)}" for one in result.providers
    ]
    lines += [f"adopted {name}" for name in result.adopted]
    lines += [f"{one.session_id} on {one.provider}: {one.why}; {one.did}" for one in result.sandboxes]
    lines += [f"{name}: files of a task that never began" for name in result.folders]
    if not result.sandboxes and not result.folders:
        lines.append("nothing is left over")
    lines += [f"{size(result.freed_bytes)} given back"] if result.freed_bytes else []
    return "\n".join([*lines, *([f"next: {result.next}"] if result.next else ())])
