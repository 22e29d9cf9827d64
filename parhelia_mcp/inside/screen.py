"""Claude Code full-screen in the window `agent`: its hooks say what it does, its transcript what was said.

What people type there and what `send` types go the same way in. A key that comes while a question is on the screen
answers it, so nothing is typed unless no question can come up: every tool call passes through here first.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from parhelia_mcp.checkpoint import session
from parhelia_mcp.errors import Problem, Refused, Unreachable
from parhelia_mcp.inside import command, configuration, input_box, stream
from parhelia_mcp.inside.agent import End, Room
from parhelia_mcp.inside.ask import Ask
from parhelia_mcp.inside.transcript import INTERRUPTED, Transcript, results, said
from parhelia_mcp.inside.wire import Receipt, gone
from parhelia_mcp.model import Reason
from parhelia_mcp.plain import clean

READY_S = 20.0  # for the client to be open; after that something on its screen waits for a person
LOOK_S = 0.2  # between two looks at the transcript
CALM_S = 1.0  # from a tool call to its question, at most: what is asked about is on the screen by then
ENTER_S = 0.4  # from a paste to the key that ends it: one that comes earlier belongs to the paste
ENTERS = 5  # times the key is pressed until the client has the message
STOP_S = 5.0  # from the Escape key to the end of the turn
NEXT = "your next message: parhelia send, or attach"


@dataclass(slots=True)
class _Typed:
    """A message on its way: `taken` when the client has it, the receipt when the conversation has."""

    text: str
    taken: anyio.Event = field(default_factory=anyio.Event)
    receipt: Receipt = field(default_factory=Receipt)

    def is_in(self, text: str) -> bool:
        return " ".join(self.text.split()) in " ".join(clean(text).split())


@dataclass(slots=True)
class _Open:
    """A question on the screen; `reply` is ours where it was answered from outside."""

    ask: Ask
    over: anyio.Event = field(default_factory=anyio.Event)
    reply: Mapping[str, Any] | None = None


class Screen:
    """One full-screen client from its start to its end. It asks for nothing where a conversation is `taken_over`."""

    def __init__(self, room: Room, mode: str, conversation: str, *, taken_over: bool = False) -> None:
        self._room, self._mode, self._taken_over = room, mode, taken_over
        self._talk = stream.Conversation()
        self._transcript = Transcript(room.home, conversation)
        self._open: list[_Open] = []  # in the order they came; the first is the one that people are shown
        self._calls: dict[str, tuple[str, Any]] = {}  # tool calls without a result, by their id
        self._typed: list[_Typed] = []
        self._busy = False
        self._why = NEXT  # what it waits for when it is not busy
        self._pid = 0
        self._ready = anyio.Event()
        self._idle = anyio.Event()
        self._left = anyio.Event()
        self._typing = anyio.Lock()
        self._called_at = 0.0  # when a tool call passed, or a question was answered
        self._stopping = False
        self.closing = False

    @property
    def conversation(self) -> str:
        return self._transcript.conversation

    async def run(self, env: Mapping[str, str], settings: Path) -> End:
        """Run the client in the window `agent` until it is left."""
        room, terminal = self._room, self._room.terminal
        assert terminal is not None
        await terminal.opened.wait()
        if terminal.trouble:
            self._end()
            return End(
                False, None, Reason.START_FAILED, f"a full-screen session needs its terminal: {terminal.trouble}"
            )
        room.resting, room.pending, room.heard = lambda: not self._busy, lambda: self._talk.pending, self._hear
        resume = session.transcript(room.home, self.conversation) is not None
        self._pid = await anyio.to_thread.run_sync(terminal.run, self._argv(settings, resume), env, room.workspace)
        room.agent |= {"pid": self._pid, "session_id": self.conversation}
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow)
            group.start_soon(self._begin, resume)
            if self._taken_over:
                group.start_soon(self._hand_back_when_left)
            await command.exited(self._pid)
            group.cancel_scope.cancel()
        self._read_on()
        self._end()
        return self._judge(await anyio.to_thread.run_sync(terminal.left))

    def _argv(self, settings: Path, resume: bool) -> list[str]:
        agent = self._room.spec.agent
        return [
            *(agent.program, "--resume" if resume else "--session-id", self.conversation),
            *("--settings", str(settings), *configuration.options(self._room.home), "--permission-mode", self._mode),
            *(("--model", agent.model) if agent.model else ()),
        ]

    async def _begin(self, resumed: bool) -> None:
        """Wait until the client is open, and type the first message."""
        self._room.phase("running")
        with anyio.move_on_after(READY_S):
            await self._ready.wait()
        if not self._ready.is_set():
            shown = await anyio.to_thread.run_sync(self._room.terminal.shown)
            self._room.phase(
                "waiting", stream.line(f"its screen asks something: {' '.join(shown[-12:])}"), ask="screen"
            )
            await self._ready.wait()
        spec = self._room.spec
        first = spec.message if resumed else "\n\n".join(filter(None, (spec.prompt, spec.message)))
        if self._taken_over or not first:
            self._show_phase()
            return
        while await self._begun():  # somebody was quicker
            await anyio.sleep(LOOK_S)
        try:
            await self._say(first)
        except Problem as problem:
            self._room.emit("warning", f"warning: the prompt was not typed: {problem}", code=problem.code)

    async def _hand_back_when_left(self) -> None:
        """End the client when whoever took the conversation over has left and it rests: the work is to go on."""
        while True:
            await self._left.wait()
            if await anyio.to_thread.run_sync(self._room.terminal.watched) or await self._begun():
                self._left = anyio.Event()
            elif not (self._busy or self._open):
                break
            await anyio.sleep(LOOK_S)
        self.closing = True
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def _judge(self, code: int | None) -> End:
        if self._stopping:
            return End(False, code, None, "Claude Code was ended")
        if code == 0:
            return End(True, 0, None, "Claude Code was left")
        if code is None:
            return End(False, None, Reason.AGENT_ERROR, "the terminal was ended, and Claude Code with it")
        how = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
        return End(False, code, Reason.AGENT_ERROR, f"Claude Code {how}")

    def _end(self) -> None:
        self.closing = True
        self._room.heard = None
        self._ready.set()
        self._idle.set()
        for typed in self._typed:
            typed.taken.set()
            typed.receipt.done.set()
        self._close_questions()

    # -- the agent's protocol

    async def send(self, text: str, id: str) -> None:
        await self._ready.wait()
        if self._open and self._open[0].ask.kind == "question":
            await self.answer(True, text)
        else:
            await self._say(text)

    async def answer(self, allow: bool, text: str | None) -> None:
        if not self._open:
            raise Refused("nothing-asked", "The session waits for no answer.", "parhelia status")
        first = self._open[0]
        first.reply = first.ask.reply(allow, text)
        status = "denied" if not allow else "answered" if first.ask.kind == "question" else "allowed"
        self._room.emit("tool", f"{status}: {first.ask.summary}", tool=first.ask.tool, status=status)
        self._close(first)

    async def interrupt(self) -> None:
        await self._ready.wait()
        self._stopping = self.closing = True
        if self._busy:
            await anyio.to_thread.run_sync(self._room.terminal.type, "\x1b")
            with anyio.move_on_after(STOP_S):
                await self._idle.wait()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    # -- typing

    async def _say(self, text: str) -> None:
        """Type a message; returns when the conversation holds it. One that looks like a command stays a message."""
        text = clean(text).strip()
        typed = _Typed(f" {text}" if text[:1] in "/!#&" else text)
        async with self._typing:
            await anyio.sleep(max(0.0, self._called_at + CALM_S - time.monotonic()))
            if self.closing:
                raise gone()
            if self._open:
                what = f"The session waits for {self._open[0].ask.summary}. A message typed now would answer that."
                raise Refused("answer-needed", what, "parhelia send ID allow")
            if begun := await self._begun():
                what = f"Somebody has begun to type on the screen: {stream.line(begun, 60)!r}. A message would be joined to it."
                raise Refused("typing-begun", what, "parhelia attach ID")
            self._typed.append(typed)
            await self._enter(typed)
        await typed.receipt.wait()

    async def _begun(self) -> str:
        """What stands in the input box and has not been sent."""
        return input_box.begun(await anyio.to_thread.run_sync(self._room.terminal.coloured))

    async def _enter(self, typed: _Typed) -> None:
        terminal = self._room.terminal
        await anyio.to_thread.run_sync(lambda: terminal.type(typed.text, paste=True))
        for number in range(ENTERS):
            await anyio.sleep(ENTER_S * (number + 1))
            await anyio.to_thread.run_sync(terminal.type, "\n")
            with anyio.move_on_after(ENTER_S * (number + 2)):
                await typed.taken.wait()
                return
        self._typed.remove(typed)
        raise Unreachable("not-taken", "The screen of Claude Code did not take the message.", "parhelia attach")

    # -- what its hooks say

    async def _hear(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take in an event; the answer holds the `output` of the hook, if it is to say something."""
        tool = str(event.get("tool_name"))
        match event.get("hook_event_name"):
            case "SessionStart":
                self._started(event)
            case "UserPromptSubmit":
                self._take(str(event.get("prompt")))
                self._work(True)
            case "PreToolUse":
                async with self._typing:
                    self._called_at = time.monotonic()
                self._calls[str(event.get("tool_use_id"))] = (tool, event.get("tool_input"))
                self._work(True)
            case "PermissionRequest":
                return await self._ask(tool, event.get("tool_input") or {})
            case "PostToolUse":
                self._called(str(event.get("tool_use_id")))
            case "Stop":
                self._work(False)
            case "PersonLeft":  # our own word: attach has ended
                self._left.set()
            case "StopFailure":
                self._work(False, f"you: the turn failed: {stream.line(event.get('last_assistant_message') or '')}")
        return {}

    def _started(self, event: Mapping[str, Any]) -> None:
        """The client is open, with this conversation or, where a person opened another one, with that."""
        with suppress(ValueError):
            opened = str(uuid.UUID(str(event.get("session_id"))))
            if opened != self.conversation:
                self._transcript = Transcript(self._room.home, opened)
        started = {"pid": self._pid, "session_id": self.conversation}
        self._room.agent |= started
        self._room.emit("agent-started", "Claude Code is open full-screen", **started)
        self._ready.set()

    async def _ask(self, tool: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Hold the hook until the question is answered, here or on the screen: the client does not end it."""
        asked = {each.ask.id for each in self._open}
        id = next((id for id, call in self._calls.items() if call == (tool, given) and id not in asked), "")
        question = _Open(Ask(id, tool, given))
        self._open.append(question)
        self._show_phase()
        await question.over.wait()
        if question.reply is None:
            return {}
        return {"output": {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": question.reply}}}

    def _called(self, id: str) -> None:
        """The call has a result: the question about it, if there was one, is over."""
        self._calls.pop(id, None)
        if question := next((each for each in self._open if each.ask.id == id), None):
            self._close(question)

    def _close(self, question: _Open) -> None:
        self._open.remove(question)
        self._called_at = time.monotonic()
        question.over.set()
        self._show_phase()

    def _close_questions(self) -> None:
        self._calls.clear()
        for question in list(self._open):
            self._close(question)

    def _work(self, busy: bool, why: str = NEXT) -> None:
        self._busy, self._why = busy, why
        if busy and self._idle.is_set():
            self._idle = anyio.Event()
        if not busy:
            self._idle.set()
            self._close_questions()
        self._show_phase()

    def _show_phase(self) -> None:
        if self.closing:
            return
        if self._open:
            first = self._open[0].ask
            self._room.phase("waiting", first.summary, ask=first.kind, tool=first.tool)
        elif self._busy:
            self._room.phase("running")
        else:
            self._room.phase("waiting", self._why, ask="message")

    # -- what its transcript says

    async def _follow(self) -> None:
        while True:
            self._read_on()
            await anyio.sleep(LOOK_S)

    def _read_on(self) -> None:
        for event in self._transcript.new():
            self._read(event)

    def _read(self, event: Mapping[str, Any]) -> None:
        room = self._room
        if event.get("version") and room.agent.get("version") != event["version"]:
            room.agent |= {"version": str(event["version"]), "transcript": str(self._transcript.path)}
            room.changed()
        if event.get("type") == "queue-operation":
            self._take(str(event.get("content") or ""))
        if words := said(event):
            self._hold(words)
        if event.get("subtype") == "turn_duration":
            event = {"type": "result", "duration_ms": event.get("durationMs")}
        for entry in self._talk.take(event):
            room.record(entry)
            if entry.kind == "turn":
                room.counters["turns"] = self._talk.turns
        for id in results(event):
            self._called(id)

    def _take(self, text: str) -> None:
        for typed in self._typed:
            if typed.is_in(text):
                typed.taken.set()

    def _hold(self, words: str) -> None:
        """The conversation holds these words of a person."""
        if words.startswith(INTERRUPTED):
            self._work(False)
            return
        self._room.view(f"> {stream.line(words, 2_000)}\n")
        self._take(words)
        for typed in [each for each in self._typed if each.is_in(words)]:
            self._typed.remove(typed)
            typed.receipt.acknowledge()
