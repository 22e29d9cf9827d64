"""What hooks do to each other: the same one twice, or two that both change one call."""

from __future__ import annotations

import re
from collections.abc import Iterator

from parhelia_mcp.hook_validation import commands, matchers
from parhelia_mcp.hook_validation.model import TOOLS, Finding, Hook
from parhelia_mcp.hook_validation.sources import Place

LARGEST = 1 << 20  # of a script, to be searched
IMPORTED = re.compile(rb"^[ \t]*(?:from|import)[ \t]+\.?(\w+)", re.MULTILINE)


def check(hooks: list[Hook], place: Place) -> Iterator[Finding]:
    yield from _duplicates(hooks)
    yield from _rewriters([hook for hook in hooks if hook.event == "PreToolUse" and _rewrites(hook, place)])


def _duplicates(hooks: list[Hook]) -> Iterator[Finding]:
    seen: dict[tuple[str, str, str], Hook] = {}
    for hook in hooks:
        key = (hook.event, hook.matcher, hook.command)
        first = seen.setdefault(key, hook) if hook.command else hook
        if first is not hook:
            what = f"The same hook stands in {first.source.path}#{first.pointer}."
            yield hook.finding("HK150", "warning", what, "remove one of the two", field="")


def _rewriters(hooks: list[Hook]) -> Iterator[Finding]:
    """A finding for each hook that changes the input of a tool that an earlier one changes too."""
    for number, hook in enumerate(hooks):
        for first in hooks[:number]:
            tool = _both(first.matcher, hook.matcher)
            if tool and first.command != hook.command:
                what = (
                    f"It can change the input of {tool}, and so can {first.source.path}#{first.pointer}. Both run at "
                    "once and the last to finish wins."
                )
                yield hook.finding("HK151", "warning", what, "let one hook make both changes")
                break


def _both(one: str, other: str) -> str:
    """A tool that both matchers hit, empty where none is known."""
    named = [*(matchers.names(one) or ()), *(matchers.names(other) or ())]
    if one == other:
        return named[0] if named else "the same tools"
    return next(
        (tool for tool in (*named, *sorted(TOOLS)) if matchers.hits(one, tool) and matchers.hits(other, tool)), ""
    )


def _rewrites(hook: Hook, place: Place) -> bool:
    """Whether the command, what it starts, or a Python module beside that which it imports speaks of `updatedInput`."""
    if "updatedInput" in hook.command:
        return True
    queue = commands.started(hook, place)
    for path in queue:  # it grows
        try:
            text = path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else b""
        except OSError:
            continue
        if b"updatedInput" in text:
            return True
        beside = [path.with_name(f"{name.decode()}.py") for name in IMPORTED.findall(text)]
        queue += [module for module in beside if module not in queue and module.is_file()]
    return False
