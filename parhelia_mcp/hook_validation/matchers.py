"""Which tools a matcher hits, by the rule Claude Code uses: a plain list of names is exact, all else is a regex."""

from __future__ import annotations

import re
from collections.abc import Iterator

from parhelia_mcp.hook_validation.model import TOOL_EVENTS, TOOLS, Finding, Source

_PLAIN = re.compile(r"[A-Za-z0-9_|, ]*")
UNKNOWN = "compare with the tools that /hooks lists"
# What Python's `re` accepts and JavaScript does not.
_PYTHON_ONLY = re.compile(r"\(\?P|\(\?[aiLmsux]+\)|\(\?#|\(\?>|(?<!\\)[+*?}]\+")


def names(matcher: str) -> list[str] | None:
    """The exact names in a plain matcher, None for a regex."""
    if not _PLAIN.fullmatch(matcher):
        return None
    return [name.strip() for name in re.split(r"[|,]", matcher) if name.strip()]


def hits(matcher: str, tool: str) -> bool:
    """Whether a hook with this matcher runs for `tool`."""
    if matcher in ("", "*"):
        return True
    listed = names(matcher)
    if listed is not None:
        return tool in listed
    try:
        return re.search(_for_python(matcher), tool) is not None
    except (re.error, RecursionError):
        return False


def judge(source: Source, event: str, matcher: str, pointer: str) -> Iterator[Finding]:
    """What is wrong with a matcher; for events about tools also what it misses."""

    def finding(code: str, severity: str, what: str, fix: str) -> Finding:
        return Finding(code, severity, str(source.path), pointer, what, fix)

    listed = names(matcher)
    if listed is None and matcher != "*" and (why := _invalid(matcher)):
        yield finding("HK122", "error", f"The matcher never matches: {why}. The hook will not run.", "Bash, Edit|Write")
        return
    if event not in TOOL_EVENTS or matcher == "*":
        return
    if listed is not None:
        wrong = {name: fix for name in listed if (fix := _suggestion(name))}
        for name, fix in wrong.items():
            severity = "error" if len(wrong) == len(listed) and fix != UNKNOWN else "warning"
            yield finding("HK123", severity, f"No tool is called {name!r}; names are exact, case too.", fix)
    elif re.match(r"\w+\(.*\)$", matcher) and matcher.partition("(")[0] in TOOLS:
        name = matcher.partition("(")[0]
        what = "This is a permission rule, not a matcher: as a regex it hits no tool."
        yield finding("HK123", "error", what, f'"matcher": "{name}", and "if": "{matcher}" on the hook')
    elif "mcp" not in matcher and not any(hits(matcher, tool) for tool in TOOLS):
        yield finding("HK123", "warning", "This regex hits no known tool.", UNKNOWN)
    if event == "PreToolUse" and hits(matcher, "Write") and hits(matcher, "Edit") and not hits(matcher, "Bash"):
        yield finding("HK124", "info", "Bash writes files too, and NotebookEdit.", f"{matcher}|NotebookEdit|Bash")


def _suggestion(name: str) -> str:
    """What to write instead of a tool's name; empty when the name is fine or cannot be judged."""
    if name.startswith("mcp__"):
        return f"{name}__.*" if name.count("__") < 2 else ""
    if name in TOOLS:
        return ""
    return next((tool for tool in TOOLS if tool.lower() == name.lower()), UNKNOWN)


def _invalid(matcher: str) -> str:
    if found := _PYTHON_ONLY.search(matcher):
        return f"{found[0]!r} is not JavaScript"
    try:
        re.compile(_for_python(matcher))
    except (re.error, RecursionError) as problem:
        return f"not a regular expression ({problem})"
    return ""


def _for_python(matcher: str) -> str:
    return re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", matcher)
