"""The hooks in the front matter of a skill, a command or an agent: YAML, of which people write a small part there.

That part is read: nested lists and mappings by indentation, plain and quoted words, text blocks, JSON on one line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from parhelia_mcp.hook_validation.model import Finding, Source
from parhelia_mcp.hook_validation.sources import text

_KEY = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^\s"'#&*!|>%@`{\[-][^:]*?))\s*:(?:\s+(.*))?$""")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_Lines = list[tuple[int, str]]  # how far each is indented, and what it says


def load(source: Source) -> tuple[Any, Finding | None]:
    """What stands under `hooks` as settings would hold it, None where nothing does, or why it was not checked."""
    try:
        lines = _hooks(text(source.path))
    except OSError as problem:
        return None, _unread(source.path, f"it cannot be read: {problem.strerror}")
    if not lines:
        return None, None
    try:
        hooks, end = _block(lines, 0)
        if end < len(lines):
            raise ValueError(f"{lines[end][1][:40]!r} is indented in a way that is not understood here")
    except (ValueError, RecursionError) as problem:
        return None, _unread(source.path, str(problem))
    return (None if hooks["hooks"] is None else hooks), None


def _unread(path: Path, why: str) -> Finding:
    what = f"The hooks in its front matter were not checked: {why}."
    return Finding("HK172", "info", str(path), "/hooks", what, 'write them as JSON: hooks: {"PreToolUse": [...]}')


def _hooks(page: str) -> _Lines:
    """The lines of the key `hooks` in the front matter; empty where there is none."""
    first, *rest = page.splitlines() or [""]
    found: _Lines = []
    for line in rest if first.rstrip() == "---" else ():
        word = line.strip()
        indent = len(line) - len(line.lstrip(" "))
        if line.rstrip() == "---" or (found and indent == 0 and word and not word.startswith("#")):
            return found
        if word and not word.startswith("#") and (found or re.match(r"hooks\s*:(\s|$)", line)):
            found.append((indent, word))
    return []  # a page that never ends its front matter has none


def _block(lines: _Lines, at: int) -> tuple[Any, int]:
    """The list or mapping that begins in line `at`, and the line after it. Raises ValueError for what is neither."""
    indent, word = lines[at]
    many: list[Any] = []
    named: dict[str, Any] = {}
    listed = _is_item(word)
    while at < len(lines) and lines[at][0] == indent and _is_item(lines[at][1]) == listed:
        word = lines[at][1]
        if listed:
            value, at = _item(lines, at, word[1:].lstrip())
            many.append(value)
            continue
        key = _KEY.fullmatch(word)
        if key is None:
            raise ValueError(f"{word[:40]!r} is not understood here")
        name = next(part for part in key.groups()[:3] if part is not None)
        named[name], at = _value(lines, at, key[4] or "", indent)
    return many if listed else named, at


def _is_item(word: str) -> bool:
    return word == "-" or word.startswith("- ")


def _item(lines: _Lines, at: int, rest: str) -> tuple[Any, int]:
    """What one dash stands for. A mapping that begins behind the dash is read as if it began on a line of its own."""
    indent, word = lines[at]
    if _is_item(rest) or _KEY.fullmatch(rest):
        inner = [*lines[:at], (indent + len(word) - len(rest), rest), *lines[at + 1 :]]
        return _block(inner, at)
    return _value(lines, at, rest, indent)


def _value(lines: _Lines, at: int, rest: str, indent: int) -> tuple[Any, int]:
    """What stands behind a key or dash, on its line or indented below it."""
    rest, at = re.sub(r"^#.*", "", rest), at + 1
    below = at
    while below < len(lines) and lines[below][0] > indent:
        below += 1
    if re.fullmatch(r"[|>][+-]?", rest):
        return ("\n" if rest[0] == "|" else " ").join(word for _, word in lines[at:below]), below
    if rest:
        return _scalar(rest), at
    dashes = at < len(lines) and lines[at][0] == indent and _is_item(lines[at][1])
    return _block(lines, at) if below > at or dashes else (None, at)


def _scalar(word: str) -> Any:
    """A word, number, or JSON on one line. Raises ValueError for the rest of YAML."""
    if word[0] in "\"'":
        quoted = re.fullmatch(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(?:\s#.*)?""", word)
        if quoted is None:
            raise ValueError(f"{word[:40]!r} has no end on its line")
        return json.loads(quoted[1]) if word[0] == '"' else quoted[1][1:-1].replace("''", "'")
    if word[0] in "[{":
        return json.loads(word)
    if word[0] in "&*!|>%@`":
        raise ValueError(f"{word[:40]!r} is not understood here")
    word = re.sub(r"\s#.*", "", word).strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if re.fullmatch(r"[-+]?\d+", word):
        return int(word)
    return float(word) if re.fullmatch(r"[-+]?\d*\.\d+", word) else word
