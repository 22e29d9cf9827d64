"""Work that the agent hands on: asked for in the journal, started by the controller, answered over the control socket.

The money is taken out of what the agent may still spend before anybody is asked, so that it is never promised twice; it
comes back only where nothing was started.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import anyio

from parhelia_mcp import model
from parhelia_mcp.errors import NotFound, Problem, Refused, Usage
from parhelia_mcp.inside import outcome
from parhelia_mcp.inside.agent import Room
from parhelia_mcp.inside.checkpoints import Checkpoints

ANSWER_S = 60.0  # for the controller; where it sleeps, the answer waits for it
WAIT_S = 600.0
LONGEST_PROMPT = 60_000  # characters: escaped, it fits into one reading of the journal
KNOWN = frozenset({"prompt", "max_usd", "timeout_hours", "model", "idempotency_key"})


class Delegation:
    """What one session has handed on, and what it was told of that."""

    def __init__(self, room: Room, checkpoints: Checkpoints) -> None:
        self._room, self._checkpoints = room, checkpoints
        self._held: list[int] = []  # micro-dollars of each request
        self._numbers: dict[str, int] = {}  # of the requests, by idempotency key
        self._answers: dict[int, Mapping[str, Any]] = {}
        self._tasks: dict[str, Mapping[str, Any]] = {}
        self._news = anyio.Event()
        self._one = anyio.Lock()

    async def submit(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Hand a task on; the same idempotency key, the same task. Raises Usage, Refused; then nothing was started."""
        request = _request(args)
        async with self._one:
            key = request.pop("idempotency_key", None) or f"request-{len(self._held) + 1}"
            if key not in self._numbers:
                await self._ask(key, request)
            number = self._numbers[key]
        with anyio.move_on_after(ANSWER_S):
            while number not in self._answers:
                await self._news.wait()
        answer = self._answers.get(number)
        if answer is None:
            note = f"Nobody has answered yet; it is not lost. Ask again with idempotency_key {key!r}: nothing starts twice."
            return {"state": "asked", "note": note}
        if "error" in answer:
            raise Refused(**answer["error"])
        return {**answer, "max_usd": model.dollars(self._held[number - 1])}

    async def _ask(self, key: str, request: dict[str, Any]) -> None:
        """Set the money aside, keep the workspace as it is now, and put the request into the journal."""
        room, micro = self._room, model.micro(request["max_usd"])
        if room.hold is None:
            raise Refused("not-to-be-handed-on", "This session has no money to hand on. Nothing was started.")
        room.hold(micro)
        try:
            kept = await self._checkpoints.take("manual", note="to hand on")
        except Problem:
            room.hold(-micro)
            raise
        self._held.append(micro)
        self._numbers[key] = len(self._held)
        room.emit(
            "delegate",
            f"handed on with ${request['max_usd']:.2f}: {outcome.brief(request['prompt'])}",
            number=len(self._held),
            request={**request, "checkpoint": kept["hash"]},
        )

    async def task(self, id: str, wait_s: float) -> Mapping[str, Any]:
        """What is known of a task that was handed on; once it has ended, or `wait_s` have gone. Raises NotFound."""
        if id not in self._tasks:
            named = ", ".join(self._tasks) or "none"
            raise NotFound("unknown-task", f"{id[:80]!r} was not handed on from here. These were: {named}.")
        with anyio.move_on_after(min(wait_s, WAIT_S)):
            while not self._tasks[id]["ended"]:
                await self._news.wait()
        return self._tasks[id]

    def hear(self, answers: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what the controller says; money of what was not started comes back, once."""
        for number, answer in ((int(number), answer) for number, answer in answers.items()):
            if number in self._answers or not 0 < number <= len(self._held):
                continue
            self._answers[number] = answer
            if "error" not in answer:
                self._room.emit("delegate", f"handed on as {answer['task_id']}")
                continue
            self._room.emit("delegate", f"not handed on: {answer['error']['message']}")
            self._numbers = {key: known for key, known in self._numbers.items() if known != number}
            if self._room.hold:
                self._room.hold(-self._held[number - 1])
        self._tasks.update(tasks)
        self._news.set()
        self._news = anyio.Event()


def _request(args: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, without what was left out. Raises Usage `bad-request`."""
    given = {name: value for name, value in args.items() if value is not None}
    wrong = sorted(set(given) - KNOWN)
    prompt = given.get("prompt")
    if wrong:
        raise Usage("bad-request", f"{wrong[0][:40]!r} is not one of: {', '.join(sorted(KNOWN))}.")
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > LONGEST_PROMPT or "\0" in prompt:
        what = f"prompt is text of 1 to {LONGEST_PROMPT:,} characters."
        raise Usage("bad-request", f"{what} Longer: put it into a file of the workspace and name the file.")
    if not _amount(given.get("max_usd"), 1e9):
        raise Usage("bad-request", "max_usd is an amount of dollars above 0.")
    if "timeout_hours" in given and not _amount(given["timeout_hours"], 720):
        raise Usage("bad-request", "timeout_hours is a number above 0, 720 at most.")
    for name in ("model", "idempotency_key"):
        if not 0 < len(str(given.get(name, "-"))) <= 200:
            raise Usage("bad-request", f"{name} is text of 1 to 200 characters.")
    return given


def _amount(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 < value <= most
