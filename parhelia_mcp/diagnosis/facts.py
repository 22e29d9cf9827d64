"""One observation: what was seen, by which channel, when; or that the channel failed, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any

from parhelia_mcp.errors import Problem
from parhelia_mcp.model import timestamp
from parhelia_mcp.plain import line


@dataclass(frozen=True, slots=True)
class Fact:
    """`failed` says why the probe got no answer; that is evidence too."""

    name: str
    value: Any
    source: str
    at: str
    failed: str | None = None

    def __str__(self) -> str:
        said = f"not to be had: {self.failed}" if self.failed is not None else line(str(self.value), 160)
        return f"{self.name.replace('_', ' ')}: {said} ({self.source})"

    def as_dict(self) -> dict[str, Any]:
        seen = {"failed": True, "why": self.failed} if self.failed is not None else {"value": self.value}
        return {"name": self.name, **seen, "at": self.at, "source": self.source}


Facts = Mapping[str, Fact]


def ask(source: str, names: tuple[str, ...], probe: Callable[[], Mapping[str, Any]]) -> dict[str, Fact]:
    """The facts that `probe` finds; each of `names` as failed where it raises. What it leaves out or finds None is no fact."""
    at = timestamp()
    try:
        found = probe()
    except (Problem, OSError, ValueError, KeyError, SubprocessError) as problem:
        code = f" [{problem.code}]" if isinstance(problem, Problem) else ""
        why = line(getattr(problem, "message", None) or str(problem)) + code
        return {name: Fact(name, None, source, at, why) for name in names}
    return {name: Fact(name, value, source, at) for name, value in found.items() if value is not None}
