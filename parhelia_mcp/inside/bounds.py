"""How much a request can cost before anybody has answered it.

A text has at most one token a byte. What was sent before is known better: the reply to it said how many tokens it
had, so of a request that begins like an earlier one only the bytes after the common beginning count one by one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from parhelia_mcp.model import MICRO
from parhelia_mcp.prices import ModelPrice, model_price, surcharge, worst_case

HIDDEN_TOKENS = 1_000  # what the API may add by itself: its own prompt for tools, the seams of a common beginning
IMAGE_TOKENS = 5_000  # the most an image may have
DOCUMENT_TOKENS = 200_000  # the most we believe of a document that is not plain text
SEARCH_TOKENS = 60_000  # what one web search may add to the input of its request
LEAST_THINKING = 1024  # the API takes no smaller budget
PARTS = ("tools", "system", "messages")
SOURCES = frozenset({"base64", "url", "file"})
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
REMEMBERED = 32  # requests whose beginnings are remembered: the main agent's and its subagents'
OURS = frozenset({"custom", "bash", "text_editor", "computer", "memory"})  # kinds of tools that the client runs


class Unpriced(Exception):
    """The request asks for something that costs money and has no price."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as money sees it: its input in tokens at most, and the two ways in which it may be made smaller."""

    price: ModelPrice
    kind: bytes  # what has to be equal for a beginning to be the same
    units: tuple[tuple[bytes, int], ...]  # (hash, tokens at most) of each tool, system block and message
    tokens: int
    cached: str
    max_tokens: int
    searches: int
    passes: int  # 2 where the API may first sum the conversation up, which is a reply of its own

    def bound(self, max_tokens: int, searches: int) -> int:
        """The most it costs when it may write `max_tokens` and search so often."""
        into = self.tokens + searches * SEARCH_TOKENS
        each = worst_case(self.price, into, max_tokens, cached=self.cached, searches=searches)
        return self.passes * each

    def fitting(self, micro: int | None, least: int) -> tuple[int, int] | None:
        """The largest (max_tokens, searches) that `micro` pays for; None where not even `least` tokens fit."""
        if micro is None:
            return self.max_tokens, self.searches
        for searches in range(self.searches, min(self.searches, 1) - 1, -1):
            room = micro - self.bound(0, searches)
            tokens = min(self.max_tokens, room // self.passes * MICRO // max(self.price.output, 1))
            if room >= 0 and tokens >= min(least, self.max_tokens):
                return tokens, searches
        return None


class Beginnings:
    """What earlier requests were counted at."""

    def __init__(self) -> None:
        self._seen: deque[tuple[bytes, tuple[tuple[bytes, int], ...], int]] = deque(maxlen=REMEMBERED)

    def remember(self, ask: Ask, tokens: int) -> None:
        """Request `ask` had so many tokens of input, says the API."""
        longer = [
            kept for kept in self._seen if not (kept[0] == ask.kind and _common(kept[1], ask.units) == len(kept[1]))
        ]
        self._seen = deque([*longer, (ask.kind, ask.units, tokens)], maxlen=REMEMBERED)

    def tokens(self, kind: bytes, units: tuple[tuple[bytes, int], ...]) -> int:
        """The most that `units` can have."""
        sizes = [tokens for _, tokens in units]
        best = sum(sizes)
        for other, before, counted in self._seen:
            if other == kind and (same := _common(before, units)):
                best = min(best, counted + sum(sizes[same:]))
        return best + HIDDEN_TOKENS


def _common(one: tuple[tuple[bytes, int], ...], other: tuple[tuple[bytes, int], ...]) -> int:
    """How many units two requests begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def ask(body: Mapping[str, Any], sent: bytes, beta: str, seen: Beginnings, prices: Mapping[str, Any]) -> Ask:
    """Read a request, given also `as_sent`. Raises Unpriced for what runs on the API's side at a price that is not known."""
    model = str(body["model"])
    fast, geo = body.get("speed") == "fast", body.get("inference_geo") not in (None, "global")
    price = model_price(model, prices).times(surcharge(model, fast=fast, one_country=geo))
    rest = {name: value for name, value in body.items() if name not in PARTS}
    alike = {name: value for name, value in rest.items() if name not in ("max_tokens", "stream", "metadata")}
    kind = blake2b(as_sent({**alike, "beta": beta})).digest()
    units = tuple(_units(body))
    return Ask(
        price=price,
        kind=kind,
        units=units,
        tokens=seen.tokens(kind, units) + len(as_sent(rest)),
        cached=_cached(sent),
        max_tokens=_max_tokens(body),
        searches=_searches(body),
        passes=2 if b'"compact' in as_sent(rest.get("context_management") or {}) else 1,
    )


def _max_tokens(body: Mapping[str, Any]) -> int:
    limit = body["max_tokens"]
    if type(limit) is not int or limit < 0:
        raise ValueError(limit)
    return limit


def _searches(body: Mapping[str, Any]) -> int:
    """How many web searches it may make; every other tool of the API's side has no price."""
    unpriced = [name for name in ("mcp_servers", "container") if body.get(name)]
    searches = []
    for tool in body.get("tools") or ():
        kind = str(tool.get("type") or "custom")
        if kind.startswith("web_search_") and isinstance(tool.get("max_uses"), int):
            searches.append(max(tool["max_uses"], 0))
        elif kind.rpartition("_")[0] not in OURS and kind not in OURS:
            unpriced.append(kind)
    if unpriced or len(searches) > 1:
        raise Unpriced(", ".join(unpriced) or "two web searches")
    return sum(searches)


def _units(body: Mapping[str, Any]) -> Iterator[tuple[bytes, int]]:
    """The parts of a request in the order in which the API joins them."""
    system = body.get("system") or []
    tools, messages = body.get("tools") or [], body.get("messages") or []
    parts = (tools, [system] if isinstance(system, str) else system, messages)
    for number, part in enumerate(parts):
        for unit in part:
            special: list[int] = []
            text = as_sent(_plain(unit, special))
            yield blake2b(text, digest_size=16, person=b"%d" % number).digest(), len(text) + sum(special)


def _plain(unit: Any, special: list[int]) -> Any:
    """A message or block without its cache mark; images and documents become hashes, their tokens go to `special`.

    Only where the API itself looks for them: the same words inside a tool's input are text and count as text.
    """
    if not isinstance(unit, dict):
        return unit
    plain = {key: value for key, value in unit.items() if key != "cache_control"}
    source = plain.get("source")
    if plain.get("type") in ("image", "document") and isinstance(source, dict) and source.get("type") in SOURCES:
        special.append(IMAGE_TOKENS if plain["type"] == "image" else DOCUMENT_TOKENS)
        plain["source"] = blake2b(json.dumps(source, sort_keys=True).encode(), digest_size=16).hexdigest()
    elif ("role" in plain or plain.get("type") == "tool_result") and isinstance(plain.get("content"), list):
        plain["content"] = [_plain(block, special) for block in plain["content"]]
    return plain


def _cached(sent: bytes) -> str:
    """The longest life that anything in the request may ask the cache for: "1h", "5m" or "" for none."""
    if b'"cache_control"' not in sent:
        return ""
    return "1h" if b'"1h"' in sent else "5m"


def as_sent(body: Mapping[str, Any]) -> bytes:
    """The request in our own words: what was counted is what is sent, whatever the original spelled twice."""
    return _JSON.encode(body).encode("utf-8", "backslashreplace")


def lowered(body: dict[str, Any], max_tokens: int, searches: int) -> dict[str, Any]:
    """The request with lower limits on its output and its searches; thinking has to stay below the output."""
    if max_tokens < body["max_tokens"]:
        body = {**body, "max_tokens": max_tokens, "thinking": _thinking(body.get("thinking"), max_tokens)}
        body = {key: value for key, value in body.items() if value is not None}
    if searches:
        body = {
            **body,
            "tools": [{**tool, "max_uses": searches} if "max_uses" in tool else tool for tool in body["tools"]],
        }
    return body


def _thinking(thinking: Any, max_tokens: int) -> Any:
    budget = int(thinking.get("budget_tokens") or 0) if isinstance(thinking, dict) else 0
    if budget < max_tokens:
        return thinking
    low = max_tokens // 2
    return {**thinking, "budget_tokens": low} if low >= LEAST_THINKING else {"type": "disabled"}
