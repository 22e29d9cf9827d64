"""A model that is a Python generator: it yields calls, is sent their results, and returns its last words."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from tests.fake_api import Reply, Request, say

Turns = Generator[tuple[str, dict[str, Any]], str, str]


def played(turns: Turns, token: str) -> Reply:
    """The answers to every request that comes with this token, one turn each."""
    block: dict[str, Any] = {}
    begun = False

    def next_turn(request: Request) -> bool:
        nonlocal begun
        if request.token != token or not request.body or not request.body.get("tools"):
            return False
        if begun and "is still connecting" in last_result(request):
            return True  # a loaded machine: the same call again
        block.clear()
        try:
            tool, arguments = turns.send(last_result(request)) if begun else next(turns)
            block.update(type="tool_use", name=tool, input=arguments)
        except StopIteration as ended:
            block.update(type="text", text=ended.value)
        except (AssertionError, LookupError) as wrong:
            block.update(type="text", text=f"Not as it should be: {wrong!r}"[:3000])
        begun = True
        return True

    return say("").but(blocks=(block,), when=next_turn, times=0)


def last_result(request: Request) -> str:
    """What the model reads as the result of its last call; reminders of the client's own may come after it."""
    contents = [message["content"] for message in request.body["messages"] if isinstance(message["content"], list)]
    found = [block for content in contents for block in content if block["type"] == "tool_result"]
    text = found[-1]["content"]
    return text if isinstance(text, str) else "\n".join(part.get("text", json.dumps(part)) for part in text)
