"""The conversation's own file as Claude Code writes it, read while it grows; what its lines say is data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.checkpoint import session
from parhelia_mcp.inside import wire

_CHUNK = 4 << 20
INTERRUPTED = "[Request interrupted by user"


class Transcript:
    """The lines that are added from now on, also to the files of subagents."""

    def __init__(self, home: Path, conversation: str) -> None:
        self._home = home
        self.conversation = conversation
        self._offsets = {path: path.stat().st_size for path in self._files()}

    @property
    def path(self) -> Path | None:
        return session.transcript(self._home, self.conversation)

    def _files(self) -> list[Path]:
        """Those of subagents first: the conversation goes on when they have ended."""
        path = self.path
        return [*sorted(path.with_suffix("").glob("subagents/*.jsonl")), path] if path else []

    def new(self) -> Iterator[dict[str, Any]]:
        """Every line that has become whole since the last time, but the client's own remarks."""
        for path in self._files():
            for event in self._added(path):
                if not event.get("isMeta"):
                    yield event

    def _added(self, path: Path) -> Iterator[dict[str, Any]]:
        while True:
            data = files.read_at(path, self._offsets.get(path, 0), _CHUNK)
            taken = 0
            for line, end in files.whole_lines(data):
                taken = end
                yield wire.event_in(line)
            self._offsets[path] = self._offsets.get(path, 0) + taken
            if not taken or len(data) < _CHUNK:
                return


def said(event: Mapping[str, Any]) -> str:
    """What a line says that a person said: a message, or one that was taken in during a turn; else nothing."""
    if event.get("isSidechain"):  # what a subagent was told
        return ""
    if event.get("type") == "attachment":
        attachment = event.get("attachment") or {}
        return str(attachment.get("prompt", "")) if attachment.get("type") == "queued_command" else ""
    content = (event.get("message") or {}).get("content") if event.get("type") == "user" else None
    if isinstance(content, list):
        return "\n".join(str(part.get("text")) for part in content if isinstance(part, dict) and part.get("text"))
    return content if isinstance(content, str) else ""


def results(event: Mapping[str, Any]) -> list[str]:
    """The ids of the tool calls whose results a line holds."""
    content = (event.get("message") or {}).get("content")
    parts = content if isinstance(content, list) else []
    return [
        str(part.get("tool_use_id")) for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"
    ]
