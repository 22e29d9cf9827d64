"""Work given and taken back, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parhelia_mcp.plain import clean, many, size
from parhelia_mcp.render.text import money, pairs, state

if TYPE_CHECKING:
    from parhelia_mcp import verbs


def submitted(result: verbs.submit.Result) -> str:
    if result.task_id is None:
        verdict = f" ({result.note})" if result.note else ""
        return f"would reserve up to {money(result.estimate_usd)}; {money(result.remaining_usd)} would be left{verdict}\nnext: {result.next}"
    head = f"{result.task_id}  {state(result.state)}  reserved {money(result.reserved_usd)}, {money(result.remaining_usd)} left"
    return "\n".join(
        part for part in (head, clean(result.note) if result.note else None, f"next: {result.next}") if part
    )


def ran(result: verbs.run.Result) -> str:
    """The last lines of `run` and `--wait`."""
    how = f"exit code {result.exit_code}" if result.exit_code is not None else result.reason or ""
    lines = [f"{result.session_id}  {state(result.state)}  {how}  {money(result.spent_usd)}"]
    if result.detail and result.state != "completed":
        lines.append(clean(result.detail))
    return "\n".join(lines + landed(result.result))


def landed(result: dict[str, Any] | None) -> list[str]:
    if not result:
        return ["no file was changed"]
    name = result.get("branch") or result.get("ref")
    lines = (
        [f"work: {name}  ({many(result.get('files_changed') or 0, 'file')}, commit {str(result.get('commit'))[:12]})"]
        if name
        else []
    )
    return lines + [clean(note) for note in result.get("notes") or ()]


def killed(result: verbs.kill.Result) -> str:
    note = f"  ({result.note})" if result.note else ""
    return f"{result.session_id}  {state(result.state)}  spent {money(result.spent_usd)}{note}"


def pulled(result: verbs.pull.Result) -> str:
    lines = [
        f"{result.session_id}: {many(result.files_changed or 0, 'file')} in {result.branch or result.ref or 'the result snapshot'}"
    ]
    if result.risky_paths:
        lines.append(
            "these would run something on your machine: " + ", ".join(clean(path) for path in result.risky_paths)
        )
    lines += [clean(note) for note in result.notes]
    lines += [f"applied: {clean(path)}" for path in result.applied_paths]
    return "\n".join([*lines, f"next: {result.next}"])


def left(result: verbs.attach.Result) -> str:
    """What a person reads who has left a session's terminal."""
    lines = [f"left {result.session_id}: {state(result.state)}"]
    if held := result.checkpoint:
        what = f"{many(held['files'], 'file')}, {size(held['bytes'])}, {'consistent' if held['consistent'] else 'taken while it worked'}"
        lines[0] += f", checkpoint {clean(held['checkpoint_id'])} ({what})"
    lines += [clean(note) for note in result.notes]
    hours, minutes = divmod((result.time_left_s or 0) // 60, 60)
    free = "nothing is charged for it" if result.time_left_s is not None else None
    rest = pairs(
        [
            ("spent", money(result.spent_usd)),
            ("money left", money(result.remaining_usd) if result.remaining_usd is not None else free),
            ("time left", f"{hours} h {minutes} min" if result.time_left_s is not None else None),
            ("next", result.next),
        ]
    )
    return "\n".join([*lines, rest])
