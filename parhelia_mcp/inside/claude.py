"""Claude Code as a session's agent: its requests go through the meter, and one client at a time holds the conversation.

That is the headless client, or the full-screen one in the session's terminal: from the start in an interactive session,
or while a person has taken the conversation over. Neither begins before the other has ended.
"""

from __future__ import annotations

import functools
import secrets
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio

from parhelia_mcp import model
from parhelia_mcp.errors import Problem, Refused
from parhelia_mcp.inside import claude_home
from parhelia_mcp.inside.agent import End, Room
from parhelia_mcp.inside.book import NoRoom
from parhelia_mcp.inside.headless import Headless
from parhelia_mcp.inside.meter import Credential, Meter
from parhelia_mcp.inside.screen import Screen
from parhelia_mcp.model import Reason

DEFAULT_MODE = "acceptEdits"
HANDED_BACK = (
    "The user worked in this conversation directly and has handed it back to you. If anything of the task is left, go on"
    " with it by yourself; if not, say in one or two sentences what was done."
)

SOFT = 0.8  # of the money for tokens: the agent is told, so that it can bring its work to an end
SOFT_LIMIT = (
    "[Parhelia] ${spent:.2f} of the ${cap:.2f} that this session may spend on tokens is used. Bring the step you are at to "
    "an end, commit what is done, and write down what is left. At the limit the session is ended and its work kept."
)


def make(room: Room) -> Claude:
    return Claude(room)


class Claude:
    """The agent's protocol (`inside.agent.Agent`) over the client that holds the conversation."""

    def __init__(self, room: Room) -> None:
        agent = room.spec.agent
        self._room = room
        self._mode = agent.permission_mode or DEFAULT_MODE
        self._low = anyio.Event()  # little money is left
        self._cap = room.spec.limits.max_tokens_usd  # without what was handed on
        self._over_budget = False
        self._stopping = False
        self._wanted = False  # a person is about to take the conversation over
        self._moved = anyio.Event()  # another client has it
        conversation = agent.session_id or str(uuid.uuid4())
        kind = Screen if agent.interactive else Headless
        self._client: Screen | Headless = kind(room, self._mode, conversation)

    async def run(self) -> End:
        room, token = self._room, f"parhelia-{secrets.token_urlsafe(32)}"
        meter = self._make_meter(token)
        room.in_flight = lambda: meter.in_flight
        room.hold = functools.partial(self._hold, meter)
        async with anyio.create_task_group() as group:
            port = await group.start(meter.serve)
            group.start_soon(self._end_when_exhausted, meter)
            group.start_soon(self._warn_when_low)
            env = claude_home.environment(room.env, port, token, room.spec.agent.credential_kind, self._mode)
            env["PARHELIA_CONTROL"] = str(room.runtime / "agent")
            end = await self._clients(env)
            group.cancel_scope.cancel()
        if self._over_budget:
            end = replace(end, ok=False, reason=Reason.OVER_BUDGET, detail=self._spent_up())
        return end

    async def _clients(self, env: Mapping[str, str]) -> End:
        """Run one client after the other until the conversation has ended."""
        room = self._room
        while True:
            client = self._client
            full_screen = isinstance(client, Screen)
            tell = room.terminal.tell if full_screen and room.terminal else None
            settings = claude_home.write(
                room.home, room.workspace, env, self._mode, tell, delegates=room.spec.agent.delegate > 0
            )
            if room.owner:
                room.owner.give(room.home)
            room.hint = "" if room.spec.agent.interactive else "/exit hands back" if full_screen else "F12: take over"
            end = await client.run({**room.env, **env}, settings)
            if self._stopping or self._over_budget:
                return end
            if full_screen and not room.spec.agent.interactive:
                await anyio.to_thread.run_sync(room.terminal.follow)
                self._hand_to(Headless(room, self._mode, client.conversation, HANDED_BACK))
            elif self._wanted:
                self._hand_to(Screen(room, self._mode, client.conversation, taken_over=True))
            else:
                return end

    def _hand_to(self, client: Screen | Headless) -> None:
        self._client, self._wanted = client, False
        self._moved.set()
        self._moved = anyio.Event()

    async def send(self, text: str, id: str) -> None:
        if self._wanted and self._client.closing:
            await self._moved.wait()
        await self._client.send(text, id)

    async def answer(self, allow: bool, text: str | None) -> None:
        await self._client.answer(allow, text)

    async def interrupt(self) -> None:
        self._stopping = True
        await self._client.interrupt()

    async def take_over(self, now: bool) -> None:
        """Open the conversation full-screen when this turn ends; `now` interrupts it. Only where somebody can see it."""
        room, client = self._room, self._client
        if isinstance(client, Screen):
            raise Refused("taken-over", "The conversation is open full-screen already.")
        if room.terminal is None or not await anyio.to_thread.run_sync(room.terminal.watched):
            raise Refused("nobody-attached", "Nobody is attached who could take the conversation over.")
        if client.closing:
            raise Refused("session-ending", "The conversation is ending by itself.")
        self._wanted = True
        room.hint = "opens full-screen " + ("at once" if now else "when this turn ends")
        await (client.interrupt() if now else client.leave())

    # -- its requests

    def _make_meter(self, token: str) -> Meter:
        room, cap = self._room, self._room.spec.limits.max_tokens_usd
        return Meter(
            upstream=room.spec.agent.upstream,
            credential=Credential(room.credential.get("kind", "none"), room.credential.get("value", "")),
            token=token,
            book=room.session_dir / "meter.jsonl",
            cap_micro=None if cap is None else model.micro(cap),
            prices=room.spec.prices,
            emit=self._charged,
        )

    def _charged(self, kind: str, **charge: Any) -> None:
        """Record what a request cost. The meter's word counts; what the client says it spent is not asked."""
        counters, usd = self._room.counters, model.dollars(charge["micro_usd"])
        tokens = sum(value for name, value in charge.items() if name.endswith("_tokens"))
        counters["tokens"] = counters.get("tokens", 0) + tokens
        counters["usd"] = round(counters.get("usd", 0.0) + usd, 6)
        self._room.emit(kind, f"{tokens} tokens, ${usd:.4f}", **charge)
        if self._cap is not None and counters["usd"] >= SOFT * self._cap:
            self._low.set()

    def _hold(self, meter: Meter, micro: int) -> None:
        try:
            meter.hold(micro)
        except NoRoom:
            left = max((meter.cap_micro or 0) - meter.spent_micro - meter.reserved_micro, 0)
            what = f"${model.dollars(micro):g} was asked for and ${model.dollars(left):g} is left for tokens here."
            raise Refused("over-task-limit", f"{what} Nothing was started.", "ask for less") from None
        self._cap = model.dollars(meter.cap_micro or 0)

    async def _warn_when_low(self) -> None:
        """Tell the agent once that little is left, while a tool runs: said after a turn it would cost another one."""
        await self._low.wait()
        while not self._room.pending():
            await anyio.sleep(0.05)
        cap, spent = self._cap or 0.0, self._room.counters["usd"]
        with suppress(Problem):  # it is ending: nobody is left to be told
            await self._client.send(SOFT_LIMIT.format(spent=spent, cap=cap), "soft-limit")
            self._room.emit(
                "warning", f"soft limit: ${spent:.2f} of ${cap:.2f} for tokens is spent; the agent was told"
            )

    def _spent_up(self) -> str:
        cap, spent = self._cap or 0.0, self._room.counters.get("usd", 0.0)
        left = max(cap - spent, 0.0)
        return (
            f"over budget: ${spent:.2f} of the ${cap:.2f} for tokens is spent, and the next request can cost more than the "
            f"${left:.2f} that is left. The work is kept; parhelia resume {self._room.spec.task} goes on as the next session"
        )

    async def _end_when_exhausted(self, meter: Meter) -> None:
        await meter.exhausted.wait()
        self._over_budget = True
        await self.interrupt()
