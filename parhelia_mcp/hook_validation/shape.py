"""Whether settings have the shape that Claude Code accepts; one wrong entry makes it drop the whole file in silence."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from parhelia_mcp.hook_validation.matchers import judge as judge_matcher
from parhelia_mcp.hook_validation.model import CLIENT, EVENTS, NEEDS, WITHOUT_MATCHER, Finding, Hook, Source

GROUP = '{"matcher": "Bash", "hooks": [{"type": "command", "command": "COMMAND", "timeout": 10}]}'
MENDED = ("user", "project", "local")  # whose bare paths `--fix` rewrites
Drop = Callable[[str, str, str, str], Finding]
TYPES: dict[str, tuple[type, str]] = {
    "command": (str, "a string"),
    "prompt": (str, "a string"),
    "url": (str, "a string"),
    "args": (list, "a list of strings"),
    "async": (bool, "true or false"),
    "once": (bool, "true or false"),
    "if": (str, "a string"),
    "statusMessage": (str, "a string"),
}


def check(source: Source, data: Any) -> tuple[list[Hook], list[Finding]]:
    """The hooks that will be loaded from `data` and what is wrong with it; no hooks when the file is dropped."""
    found: list[Finding] = []
    hooks: list[Hook] = []
    for item in _walk(source, data):
        (hooks if isinstance(item, Hook) else found).append(item)
    if any(source.dropped in finding.what for finding in found):
        hooks = []
    return hooks, found


def _walk(source: Source, data: Any) -> Iterator[Hook | Finding]:
    def drop(code: str, pointer: str, what: str, fix: str) -> Finding:
        return Finding(code, "error", str(source.path), pointer, f"{what} {source.dropped}", fix)

    if not isinstance(data, dict):
        yield drop("HK103", "", f"It holds {_kind(data)} instead of an object.", '{"hooks": {"PreToolUse": [...]}}')
        return
    rules = data.get("permissions")
    for name in ("allow", "deny", "ask"):
        if isinstance(rules, dict) and name in rules and not _strings(rules[name]):
            yield drop("HK104", f"/permissions/{name}", "It must be a list of strings.", f'"{name}": ["Bash"]')
    if "hooks" not in data:
        return
    events = data["hooks"]
    if not isinstance(events, dict):
        yield drop("HK103", "/hooks", f"`hooks` is {_kind(events)}.", '"hooks": {"PreToolUse": [' + GROUP + "]}")
        return
    for event, groups in events.items():
        yield from _event(source, event, groups, drop)
    if data.get("disableAllHooks") is True and events:
        yield Finding(
            "HK170",
            "error",
            str(source.path),
            "/disableAllHooks",
            "All hooks are switched off here, in every file.",
            '"disableAllHooks": false',
        )


def _event(source: Source, event: str, groups: Any, drop: Drop) -> Iterator[Hook | Finding]:
    pointer = f"/hooks/{_escape(event)}"
    if event not in EVENTS:
        near = difflib.get_close_matches(event, EVENTS, 1, 0.5)
        what = f"Claude Code {CLIENT} has no event {event!r}; hooks under it never run."
        fix = f"did you mean {near[0]}?" if near else "remove it, or check the client's version: claude --version"
        if source.kind in ("plugin", "page"):
            yield drop("HK120", pointer, what, fix)
        else:
            yield Finding("HK120", "warning", str(source.path), pointer, what, fix)
        return
    if not isinstance(groups, list):
        yield drop("HK111", pointer, f"The value of {event} is {_kind(groups)}, not a list.", f'"{event}": [{GROUP}]')
        return
    for number, group in enumerate(groups):
        yield from _group(source, event, group, f"{pointer}/{number}", drop)


def _group(source: Source, event: str, group: Any, pointer: str, drop: Drop) -> Iterator[Hook | Finding]:
    handlers = group.get("hooks") if isinstance(group, dict) else None
    if not isinstance(handlers, list):
        flat = group if isinstance(group, dict) and "command" in group else None
        fix = json.dumps({"hooks": [flat]}) if flat else GROUP
        yield drop("HK111", pointer, "An entry must be an object with a list `hooks`.", fix)
        return
    matcher = group.get("matcher", "")
    if not isinstance(matcher, str):
        fix = '"matcher": "Edit|Write", or leave it out to match everything'
        yield drop("HK111", f"{pointer}/matcher", f"The matcher is {_kind(matcher)}, not a string.", fix)
        return
    if not handlers:
        yield Finding("HK113", "warning", str(source.path), f"{pointer}/hooks", "The list is empty.", GROUP)
    for number, handler in enumerate(handlers):
        yield from _handler(source, event, matcher, handler, f"{pointer}/hooks/{number}", drop)
    if matcher and event in WITHOUT_MATCHER:
        what = f"{event} has no matcher; this one is ignored."
        yield Finding("HK121", "warning", str(source.path), f"{pointer}/matcher", what, "remove it")
    elif matcher:
        yield from judge_matcher(source, event, matcher, f"{pointer}/matcher")


def _handler(
    source: Source, event: str, matcher: str, given: Any, pointer: str, drop: Drop
) -> Iterator[Hook | Finding]:
    if isinstance(given, str):
        what = f"The hook is a bare path ({given[:80]!r})."
        writes = "   (parhelia hooks validate --fix writes it)" if source.kind in MENDED else ""
        yield drop("HK110", pointer, what, json.dumps(as_command(given)) + writes)
        return
    if not isinstance(given, dict):
        yield drop("HK112", pointer, f"The hook is {_kind(given)}.", '{"type": "command", "command": "COMMAND"}')
        return
    kind = given.get("type")
    if kind not in NEEDS:
        what = f"The type is {kind!r}." if "type" in given else "The hook has no `type`."
        yield drop("HK112", pointer, what, f'type must be one of {", ".join(sorted(NEEDS))}; a script is "command"')
        return
    wrong = list(_fields(given))
    for name, what, fix in wrong:
        yield drop("HK114" if name == "timeout" else "HK113", f"{pointer}/{name}", what, fix)
    if wrong:
        return
    hook = Hook(source, event, matcher, given, pointer)
    if kind == "command" and not given["command"].strip():
        yield hook.finding("HK113", "error", "The command is empty: nothing runs.", '"command": "python3 PATH"')
    timeout = given.get("timeout", 0)
    if timeout >= 1000 or (timeout > 60 and event == "PreToolUse"):
        what = f"{timeout} is in seconds; a call may wait that long, and a guard that takes longer lets it pass."
        yield hook.finding("HK115", "warning", what, '"timeout": 10', "timeout")
    if "onFailure" in given:
        what = f"Claude Code {CLIENT} does not know `onFailure`: a failing hook lets the tool run."
        yield hook.finding("HK171", "warning", what, "exit 2 in the script itself", "onFailure")
    if given.get("async") and event == "PreToolUse":
        yield hook.finding("HK126", "warning", "An asynchronous hook cannot block a call.", "remove `async`", "async")
    yield hook


def _fields(given: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Fields whose value the client's schema refuses: name, what, fix."""
    needed = NEEDS[given["type"]]
    if needed not in given:
        yield needed, f"A hook of type {given['type']} needs `{needed}`.", f'"{needed}": "..."'
    for name, (wanted, words) in TYPES.items():
        if name in given and (not isinstance(given[name], wanted) or (wanted is list and not _strings(given[name]))):
            yield name, f"`{name}` is {_kind(given[name])}, not {words}.", f"make it {words}"
    if "shell" in given and given["shell"] not in ("bash", "powershell"):
        yield "shell", f"The shell is {given['shell']!r}.", '"shell": "bash"'
    timeout = given.get("timeout", 1)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        yield (
            "timeout",
            f"The timeout is {json.dumps(timeout)}, not a positive number.",
            'seconds, a number: "timeout": 10',
        )


def as_command(path: str) -> dict[str, Any]:
    """The entry that a bare path was meant to be."""
    command = f"python3 {path}" if path.endswith(".py") else path
    return {"type": "command", "command": command, "timeout": 10}


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
