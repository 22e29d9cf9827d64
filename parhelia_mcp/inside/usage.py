"""What a reply says it used, read from the bytes as they pass."""

from __future__ import annotations

import json
from typing import Any

LONGEST_JSON = 64 << 20  # bytes of a reply in one piece that are kept to be read


class UsageReader:
    """Feed it a reply; afterwards `usage` holds the counts, and `final` says whether they are the last word."""

    def __init__(self, content_type: str) -> None:
        self.usage: dict[str, Any] = {}
        self.final = False
        self._stream = content_type.startswith("text/event-stream")
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        self._rest += data
        if not self._stream:
            del self._rest[LONGEST_JSON:]
            return
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in lines:
            if line.startswith(b"data:") and b'"usage"' in line:
                self._event(_parse(line[5:]))

    def end(self) -> None:
        """The reply is complete."""
        if not self._stream:
            self._merge(_parse(bytes(self._rest)).get("usage"), last=True)

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("type") == "message_start":
            self._merge(event["message"].get("usage"), last=False)
        elif event.get("type") == "message_delta":
            self._merge(event.get("usage"), last=True)

    def _merge(self, usage: Any, *, last: bool) -> None:
        """Later counts are totals: they replace earlier ones field by field."""
        if isinstance(usage, dict):
            self.usage |= {key: value for key, value in usage.items() if value is not None}
            self.final = self.final or last


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def tokens_in(usage: dict[str, Any]) -> int:
    """All input of a request, whether it was read, written to the cache or came from it."""
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage.get(name) or 0) for name in names)


def counts(usage: dict[str, Any]) -> dict[str, int]:
    """The numbers that the journal keeps."""
    searches = usage.get("server_tool_use") or {}
    return {
        "input_tokens": int(usage.get("input_tokens") or 0),
        "output_tokens": int(usage.get("output_tokens") or 0),
        "cache_read_tokens": int(usage.get("cache_read_input_tokens") or 0),
        "cache_write_tokens": int(usage.get("cache_creation_input_tokens") or 0),
        "web_searches": int(searches.get("web_search_requests") or 0),
    }
