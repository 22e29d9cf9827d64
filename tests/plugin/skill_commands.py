"""Every `parhelia ...` command in the skills, taken from their code, as the words a shell would make of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import setup

FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
CUT = re.compile(r"\s(?:\||>|&&|;|#)\s.*|\s#\s.*")


@dataclass(frozen=True)
class Command:
    skill: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(CUT.sub("", self.text))[1:]


def pages() -> list[Path]:
    return sorted((setup.ROOT / "skills").glob("*/SKILL.md"))


def commands() -> list[Command]:
    return [Command(page.parent.name, text) for page in pages() for text in commands_in(page.read_text())]


def commands_in(page: str) -> list[str]:
    """Every line and every span of code that begins with our command."""
    return [text for text in _code(page) if _is_command(text)]


def _code(page: str) -> Iterator[str]:
    for block in FENCE.findall(page):
        yield from (line.strip() for line in block.splitlines())
    for text in INLINE.findall(FENCE.sub("", page)):
        yield text.replace("\\|", "|").strip()


def _is_command(text: str) -> bool:
    return bool(re.match(r"parhelia\s+\S", text))
