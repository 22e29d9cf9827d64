"""What may be asked of a running session over its control sockets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from parhelia_mcp.errors import Busy, Refused
from parhelia_mcp.inside import control, outcome
from parhelia_mcp.inside.agent import Agent, Room
from parhelia_mcp.inside.delegation import Delegation
from parhelia_mcp.inside.limits import Ending
from parhelia_mcp.model import Reason, State

if TYPE_CHECKING:
    from parhelia_mcp.inside.runner import Runner

LEFT_S = 3.0  # within which the terminal and a command mean the same one who left
Args = Mapping[str, Any]


class Requests:
    """The ops of one session: `ops` for the controller, `agent_ops` for the agent's own user, which end nothing."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._delivered: set[str] = set()
        self._delegation: Delegation | None = None
        self._leaving = anyio.Lock()
        self._left: dict[str, tuple[float, dict[str, Any]]] = {}  # who said so -> when, and the checkpoint taken
        self.agent_ops: dict[str, control.Op] = {
            "checkpoint": self._risky,
            "event": self._event,
            "left": self._someone_left,
            "take-over": self._take_over,
            "submit": self._submit,
            "task": self._task,
        }
        self.ops: dict[str, control.Op] = {
            "status": self._status,
            "checkpoint": self._checkpoint,
            "send": self._send,
            "answer": self._answer,
            "stop": self._stop,
            "delegated": self._delegated,
        }

    async def _status(self, args: Args) -> dict[str, Any]:
        runner = self._runner
        return {**runner.state(), "taking": runner.checkpoints.taking if runner.room else None}

    def _working(self) -> tuple[Agent, Room]:
        runner = self._runner
        if runner.agent is None or runner.room is None or runner.phase != "running":
            what = f"The agent is not running ({runner.phase})."
            raise Busy("not-running", what, f"parhelia status {runner.session}")
        return runner.agent, runner.room

    async def _checkpoint(self, args: Args) -> dict[str, Any]:
        """Take a checkpoint; `trigger` is `manual`, or `detach` when a person has left and does not come back by itself."""
        _, room = self._working()
        trigger = str(args.get("trigger", "manual"))
        if trigger == "detach":
            taken = await self._keep_for_one_who_left("command")
            if room.heard:
                await room.heard({"hook_event_name": "PersonLeft"})
            return taken
        return await self._runner.checkpoints.take(trigger, note=str(args.get("note") or ""))

    async def _someone_left(self, args: Args) -> dict[str, Any]:
        return await self._keep_for_one_who_left("terminal")

    async def _keep_for_one_who_left(self, source: str) -> dict[str, Any]:
        """Take one checkpoint for each who left, although the terminal says so and, if it can, the command they used."""
        self._working()
        other = {"terminal": "command", "command": "terminal"}[source]
        async with self._leaving:
            now = time.monotonic()
            began, seen = self._left.pop(other, (now - LEFT_S, {}))
            if now - began >= LEFT_S:
                seen = await self._runner.checkpoints.take("detach")
                self._left[source] = now, seen
            return seen

    async def _event(self, args: Args) -> Mapping[str, Any]:
        """What a full-screen client tells of itself."""
        _, room = self._working()
        return await room.heard(args) if room.heard else {}

    async def _take_over(self, args: Args) -> dict[str, Any]:
        agent, room = self._working()
        await agent.take_over(bool(args.get("now")))
        room.changed()
        return {"taken": True}

    def _handing_on(self) -> Delegation:
        _, room = self._working()
        if room.spec.agent.delegate < 1:
            raise Refused("not-to-be-handed-on", "This session may hand nothing on. Nothing was started.")
        if self._delegation is None:
            self._delegation = Delegation(room, self._runner.checkpoints)
        return self._delegation

    async def _submit(self, args: Args) -> Mapping[str, Any]:
        return await self._handing_on().submit(args)

    async def _task(self, args: Args) -> Mapping[str, Any]:
        return await self._handing_on().task(str(args["task_id"]), float(args.get("wait_s") or 0))

    async def _delegated(self, args: Args) -> dict[str, Any]:
        self._handing_on().hear(args["answers"], args["tasks"])
        return {"heard": True}

    async def _risky(self, args: Args) -> dict[str, Any]:
        """Take a checkpoint before the agent does what may harm: the `command` of a `tool`."""
        self._working()
        tool, command = (str(args.get(name) or "") for name in ("tool", "command"))
        return await self._runner.checkpoints.take("risky", note=command[:200], pending_tool=tool[:200] or "unknown")

    async def _send(self, args: Args) -> dict[str, Any]:
        """Deliver a message once, however often it is asked for under the same id."""
        text, number = str(args["text"]), str(args["id"])
        agent, room = self._working()
        if number not in self._delivered:
            room.emit("message-sent", f"message sent: {outcome.brief(text)}", message_id=number)
            await agent.send(text, number)
            self._delivered.add(number)
            room.emit("message-delivered", f"message delivered: {outcome.brief(text)}", message_id=number)
        return {"delivered": True}

    async def _answer(self, args: Args) -> dict[str, Any]:
        agent, _ = self._working()
        await agent.answer(bool(args["allow"]), args.get("text"))
        return {"answered": True}

    async def _stop(self, args: Args) -> dict[str, Any]:
        """End the session; answers at once, result.json says when it has ended. `grace_s` is the agent's time."""
        state, reason = State(args.get("state", "killed")), Reason(args.get("reason", "killed-by-user"))
        detail = str(args.get("detail") or "the session was terminated on request")
        self._runner.stop(Ending(state, reason, detail, grace_s=float(args.get("grace_s", 10))))
        return {"stopping": True}
