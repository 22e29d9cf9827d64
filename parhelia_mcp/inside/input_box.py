"""What a person has begun to type in the full-screen client, read from what the terminal shows."""

from __future__ import annotations

import re

_PART = re.compile(r"\x1b\[([\d;]*)m|([^\x1b]+)")
_COLOUR = re.compile(r"[345]8;(5;\d+|2;\d+;\d+;\d+)")
_RULE = "──"
_PROMPT = "❯"


def begun(screen: str) -> str:
    """The text in the input box of a `screen` with its colours; empty where there is none, or no box to be seen.

    A box that is no longer for messages, but for commands, is not empty: what is typed there would be run. What the
    client suggests is dim, and not a person's.
    """
    lines = _bright(screen).splitlines()
    rules = [number for number, text in enumerate(lines) if text.startswith(_RULE)]
    if len(rules) < 2:
        return ""
    box = " ".join(" ".join(lines[rules[-2] + 1 : rules[-1]]).split())
    return box.removeprefix(_PROMPT).strip()


def _bright(screen: str) -> str:
    """The text without what is dim, and without the character under the cursor, which is in reverse."""
    text, left_out = "", set[str]()
    for style, words in _PART.findall(screen):
        if words:
            text += "".join(re.findall(r"\n", words)) if left_out else words
            continue
        for code in _COLOUR.sub("", style).split(";"):
            if code in ("", "0"):
                left_out = set()
            elif code in ("2", "7"):
                left_out = left_out | {code}
            elif code in ("22", "27"):
                left_out = left_out - {code[1:]}
    return text
