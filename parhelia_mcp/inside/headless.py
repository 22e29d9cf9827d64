"""Claude Code without a screen: one process, JSON lines both ways."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process, TaskGroup

from parhelia_mcp import files
from parhelia_mcp.checkpoint import session
from parhelia_mcp.errors import Refused, Unreachable
from parhelia_mcp.inside import claude_home, configuration, stream, wire
from parhelia_mcp.inside.agent import End, Room
from parhelia_mcp.inside.ask import Ask
from parhelia_mcp.model import Reason

GO_ON = "Continue from where you left off."  # a call that was open when the session died is not in the conversation
WAKE_S = 2.0  # for the client to start a turn by itself after background work ended
STOP_S = 10.0  # from an interrupt to the end of the turn
DRAIN_S = 2.0  # for the last output of a client that has ended; a child it left may hold the pipes open
COMPLAINT = 2_000  # characters of stderr kept to explain an end


class Headless:
    """One client process from its first message to its end. With `opening` a conversation goes on with these words."""

    def __init__(self, room: Room, mode: str, conversation: str, opening: str | None = None) -> None:
        self._room, self._mode, self._opening = room, mode, opening
        self.conversation = self._id = conversation
        self._talk = stream.Conversation()
        self._asks: dict[str, Ask] = {}  # in the order they came; the first is the one that people are shown
        self._messages: dict[str | None, wire.Receipt] = {}
        self._answers: dict[str | None, wire.Receipt] = {}
        self._known: set[str] = set()  # messages that an earlier session's turn took in
        self._complaint = ""
        self._started = anyio.Event()
        self._stopping = anyio.Event()
        self._closing = False
        self._leaving = False  # it is to end with the turn
        self._rested = False  # what runs in the background does nothing
        self._writing = anyio.Lock()
        self._process: Process | None = None

    @property
    def closing(self) -> bool:
        """Whether it takes no more messages."""
        return self._closing or self._stopping.is_set()

    async def send(self, text: str, id: str) -> None:
        await self._started.wait()
        key = self._message_uuid(id)
        if key in self._known:
            return
        if key not in self._messages:
            if self.closing:
                hint = f"parhelia submit --to {self._room.spec.task} MESSAGE"
                raise Refused("session-ending", "The session is ending; the message was not given to it.", hint)
            first = next(iter(self._asks.values()), None)
            if first and first.kind == "question":
                await self.answer(True, text)
                return
            self._messages[key] = wire.Receipt()
            await self._tell(wire.message(key, text))
        await self._messages[key].wait()

    async def answer(self, allow: bool, text: str | None) -> None:
        if not self._asks:
            raise Refused("nothing-asked", "The session waits for no answer.", "parhelia status")
        first = next(iter(self._asks.values()))
        reply = first.reply(allow, text)
        del self._asks[first.id]
        self._answers[first.id] = wire.Receipt()
        status = "denied" if not allow else "answered" if first.kind == "question" else "allowed"
        self._room.emit("tool", f"{status}: {first.summary}", tool=first.tool, status=status)
        self._show(f"[{status}: {first.summary}] {text or ''}".rstrip())
        await self._tell(wire.control_response(first.id, {"subtype": "success", "response": reply}))
        self._show_phase()
        await self._answers[first.id].wait()

    async def interrupt(self) -> None:
        await self._started.wait()
        self._stopping.set()
        if not self._talk.turn:
            await self._close_when_settled(0.0)
            return
        with suppress(Unreachable):  # it has ended by itself: what was wanted
            await self._tell({"type": "control_request", "request_id": "stop", "request": {"subtype": "interrupt"}})

    async def leave(self) -> None:
        """End the client when its turn is over, although background work may be open."""
        await self._started.wait()
        self._leaving = True
        await self._close_when_settled(0.0)

    # -- the life of the client

    async def run(self, env: Mapping[str, str], settings: Path) -> End:
        """Start the client, say the first message, follow it to its end."""
        room = self._room
        room.resting = lambda: not self._talk.turn
        room.pending = lambda: self._talk.pending
        resume = room.spec.agent.resume or self._opening is not None
        transcript = session.transcript(room.home, self._id) if resume else None
        self._known = claude_home.taken_in(transcript)
        try:
            process = self._process = await room.spawn(self._argv(settings, transcript), env=env, stdin=subprocess.PIPE)
        except OSError as problem:
            self._closing = True
            self._started.set()
            return End(False, None, Reason.START_FAILED, f"{room.spec.agent.program} could not be started: {problem}.")
        room.agent |= {"pid": process.pid, "session_id": self._id}
        async with process, anyio.create_task_group() as group:
            drained = anyio.Event()
            group.start_soon(self._follow, group, drained)
            group.start_soon(self._keep_stderr)
            group.start_soon(self._kill_when_deaf)
            group.start_soon(self._leave_what_rests)
            group.start_soon(self._begin, transcript is not None)
            code = await process.wait()
            with anyio.move_on_after(DRAIN_S):
                await drained.wait()
            group.cancel_scope.cancel()
        return self._ended(code)

    def _argv(self, settings: Path, transcript: Path | None) -> list[str]:
        agent = self._room.spec.agent
        # By its path a conversation goes on in any directory; by its id only in the one where it began.
        conversation = ("--resume", str(transcript)) if transcript else ("--session-id", self._id)
        streams = ("--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
        return [
            *(agent.program, "-p", *streams, "--replay-user-messages", "--include-partial-messages"),
            *("--permission-prompt-tool", "stdio", "--permission-mode", self._mode),
            *conversation,
            *("--settings", str(settings), *configuration.options(self._room.home)),
            *(("--model", agent.model) if agent.model else ()),
        ]

    async def _begin(self, resumed: bool) -> None:
        """Say the first message. It goes over the pipe, so it may have any length and any characters."""
        spec = self._room.spec
        first = (spec.message or GO_ON) if resumed else "\n\n".join(filter(None, (spec.prompt, spec.message)))
        text, number = (first, spec.session) if self._opening is None else (self._opening, str(uuid.uuid4()))
        self._talk.turn = True
        self._room.phase("running")
        self._show(f"> {stream.line(text, 2_000)}")
        with suppress(Unreachable):  # a client that has ended already is judged by its exit
            await self._tell(wire.message(self._message_uuid(number), text))
        self._started.set()

    def _ended(self, code: int) -> End:
        for receipt in (*self._messages.values(), *self._answers.values()):
            receipt.done.set()
        self._started.set()
        end = stream.judge(self._talk.result, code, stream.line(self._complaint, 1_000))
        if self._stopping.is_set() and not end.ok:
            end = End(False, code, None, "Claude Code was interrupted", end.text)
        return end

    async def _kill_when_deaf(self) -> None:
        await self._stopping.wait()
        await anyio.sleep(STOP_S)
        self._process.kill()

    async def _leave_what_rests(self) -> None:
        """Finish although background work is open, a server perhaps, when it has done nothing for long.

        The runner counts the CPU it uses as progress; this comes before the runner would end the session for none.
        """
        rest = self._room.spec.limits.no_progress_minutes * 60 / 2
        while not (self._free() and time.monotonic() - self._room.active_at > rest):
            await anyio.sleep(min(5.0, rest / 4))
        self._rested = True
        self._room.emit("warning", "what the agent left in the background does nothing; it is ended")
        await self._close_when_settled(0.0)

    # -- what the client says

    async def _follow(self, group: TaskGroup, drained: anyio.Event) -> None:
        path = self._room.session_dir / "stream.jsonl"
        raw = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            async for text in wire.lines(self._process.stdout):
                event = wire.event_in(text)
                if event.get("type") == "stream_event":  # a part of what comes whole later; it shows progress
                    self._room.active_at = time.monotonic()
                    continue
                self._keep(raw, text)
                self._take(event, group)
                if self._settled():
                    group.start_soon(self._close_when_settled, WAKE_S if self._talk.waking else 0.0)
        finally:
            os.close(raw)
        drained.set()

    def _keep(self, raw: int, text: bytes) -> None:
        """Keep what the client said as it said it, for whoever has to find out what happened."""
        try:
            files.write_all(raw, text + b"\n")
        except OSError as problem:
            self._room.failed(problem)

    def _take(self, event: Mapping[str, Any], group: TaskGroup) -> None:
        known = self._talk.version
        for entry in self._talk.take(event):
            self._room.record(entry)
        if self._talk.version != known:
            self._say_started()
        key = wire.acknowledged(event)
        if receipt := self._messages.get(key) or self._answers.get(key):
            receipt.acknowledge()
        match event.get("type"):
            case "result":
                self._turn_ended()
            case "control_request":
                self._asked(event, group)
            case "control_cancel_request":
                self._asks.pop(str(event.get("request_id")), None)
                self._show_phase()

    def _say_started(self) -> None:
        started = {"pid": self._process.pid, "session_id": self._id, "version": self._talk.version}
        self._room.agent |= started
        self._room.emit("agent-started", f"Claude Code {self._talk.version} works", **started)
        self._room.changed()

    def _turn_ended(self) -> None:
        transcript = session.transcript(self._room.home, self._id)
        self._room.agent["transcript"] = str(transcript) if transcript else None
        self._room.counters["turns"] = self._talk.turns
        self._room.changed()

    def _asked(self, event: Mapping[str, Any], group: TaskGroup) -> None:
        id, request = str(event.get("request_id")), event.get("request") or {}
        if request.get("subtype") == "can_use_tool":
            self._asks[id] = Ask(id, str(request.get("tool_name")), request.get("input") or {})
            self._show_phase()
        else:
            group.start_soon(self._decline, id)

    async def _decline(self, id: str) -> None:
        """Answer a request that means nothing here: the client would wait for ever."""
        with suppress(Unreachable):
            await self._tell(wire.control_response(id, {"subtype": "error", "error": "not supported in this session"}))

    def _free(self) -> bool:
        """Whether there is no turn, no question and no message under way."""
        return not (self._talk.turn or self._asks) and all(each.delivered for each in self._messages.values())

    def _settled(self) -> bool:
        """Whether nothing keeps the client."""
        if self._stopping.is_set():
            return not self._talk.turn
        return self._free() and (self._rested or self._leaving or not self._talk.background)

    async def _close_when_settled(self, delay: float) -> None:
        """End the client by closing its stdin, if after `delay` seconds there is still nothing to do."""
        await anyio.sleep(delay)
        if self._settled() and not self._closing:
            self._closing = True
            await self._process.stdin.aclose()

    async def _keep_stderr(self) -> None:
        async for data in self._process.stderr:
            self._room.stderr(data)
            self._complaint = (self._complaint + data.decode(errors="replace"))[-COMPLAINT:]

    # -- what the client is told

    def _message_uuid(self, id: str) -> str:
        """The client runs a message with an id that it knows only once, so the id follows from ours."""
        return str(uuid.uuid5(uuid.UUID(self._id), id))

    async def _tell(self, value: Mapping[str, Any]) -> None:
        """Give the client one line. Raises Unreachable `agent-gone` when it no longer reads."""
        try:
            async with self._writing:
                await self._process.stdin.send(json.dumps(value).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise wire.gone() from None

    def _show_phase(self) -> None:
        first = next(iter(self._asks.values()), None)
        if first is None:
            self._room.phase("running")
        else:
            self._room.phase("waiting", first.summary, ask=first.kind, tool=first.tool, request_id=first.id)

    def _show(self, text: str) -> None:
        """Add to the live view. The log of output holds what the agent says; all the rest is in the journal."""
        if text:
            self._room.view(text + "\n")
