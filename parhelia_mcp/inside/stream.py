"""What Claude Code prints as stream-json, folded into journal entries and a transcript that people can read.

Nothing here does I/O. Everything the client says is data: a shape that is not expected is passed over, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parhelia_mcp.inside.agent import End
from parhelia_mcp.model import Reason

LINE = 300  # characters of one line in the journal
LAST_WORD = 20_000  # characters kept of the agent's answer
MAIN_ARGUMENT = ("command", "file_path", "pattern", "url", "query", "description", "prompt", "skill")


class Entry(NamedTuple):
    """One event for the journal; `shown` is what the readable transcript says of it, without a last newline."""

    kind: str
    text: str
    fields: dict[str, Any]
    shown: str


def line(text: object, limit: int = LINE) -> str:
    """`text` on one line, cut to `limit` characters."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def call(tool: str, arguments: Mapping[str, Any]) -> str:
    """A tool call as a person would say it: the tool and its telling argument."""
    telling = next((arguments[name] for name in MAIN_ARGUMENT if arguments.get(name)), None)
    if telling is None:
        telling = json.dumps(arguments, ensure_ascii=False, default=str) if arguments else ""
    return line(f"{tool} {telling}".strip())


@dataclass(slots=True)
class Conversation:
    """Where the conversation stands, from the events so far; `take` folds in the next."""

    version: str = ""
    turn: bool = False  # the client works on a turn
    turns: int = 0
    waking: bool = False  # background work has ended between turns: the client starts a turn by itself
    background: set[str] = field(default_factory=set)  # work that a turn left running
    result: Mapping[str, Any] | None = None  # of the last turn
    _calls: dict[str, str] = field(default_factory=dict)  # tool calls without a result yet

    @property
    def idle(self) -> bool:
        return not self.turn and not self.background

    @property
    def pending(self) -> str | None:
        """The tool whose call has waited longest for its result."""
        return next((said.partition(" ")[0] for said in self._calls.values()), None)

    def take(self, event: Mapping[str, Any]) -> list[Entry]:
        """What the event means for the journal; most mean nothing."""
        match event.get("type"):
            case "system":
                return self._system(event)
            case "assistant":
                return self._assistant(event)
            case "user":
                return self._tool_results(event)
            case "result":
                return self._turn_end(event)
        return []

    def _system(self, event: Mapping[str, Any]) -> list[Entry]:
        task = str(event.get("task_id"))
        match event.get("subtype"):
            case "init":
                self.version = str(event.get("claude_code_version", ""))
                self.turn, self.waking = True, False
            case "task_started":
                self.background.add(task)
            case "task_notification":
                self.background.discard(task)
                self.waking = not self.turn
            case "api_retry":
                again = f"{event.get('attempt')} of {event.get('max_retries')}"
                why = event.get("error_status") or event.get("error") or "connection"
                text = line(f"the API failed ({why}); trying again, {again}")
                return [Entry("warning", text, {"code": "api-retry"}, f"[{text}]")]
        return []

    def _assistant(self, event: Mapping[str, Any]) -> list[Entry]:
        message = event.get("message") or {}
        inner = {"subagent": True} if event.get("parent_tool_use_id") or event.get("isSidechain") else {}
        entries = []
        for block in _blocks(message):
            if block.get("type") == "text" and str(block.get("text", "")).strip():
                kind = "warning" if message.get("model") == "<synthetic>" else "message"
                entries.append(Entry(kind, line(block["text"]), inner, str(block["text"]).strip()))
            elif block.get("type") == "tool_use":
                name, arguments = str(block.get("name")), block.get("input") or {}
                said = self._calls[str(block.get("id"))] = call(name, arguments)
                entries.append(Entry("tool", said, {"tool": name, "status": "started", **inner}, f"[{said}]"))
        return entries

    def _tool_results(self, event: Mapping[str, Any]) -> list[Entry]:
        entries = []
        for block in _blocks(event.get("message") or {}):
            said = self._calls.pop(str(block.get("tool_use_id")), None)
            if block.get("type") != "tool_result" or said is None:
                continue
            status = "error" if block.get("is_error") else "ok"
            answer = _plain(block.get("content"))
            shown = f"[{said}: {status}] {line(answer, 120) if status == 'error' else ''}".rstrip()
            fields = {"tool": said.partition(" ")[0], "status": status, "answer": line(answer)}
            entries.append(Entry("tool", f"{said}: {status}", fields, shown))
        return entries

    def _turn_end(self, event: Mapping[str, Any]) -> list[Entry]:
        self.turn, self.result = False, event
        self.turns += 1
        self._calls.clear()
        status = "failed" if event.get("is_error") else "done"
        fields = {"turn": self.turns, "status": status, "duration_ms": event.get("duration_ms")}
        return [Entry("turn", f"turn {self.turns} {status}", fields, "")]


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _plain(content: object) -> str:
    """The text of a tool's result, which is a string or a list of blocks."""
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return str(content or "")


def judge(result: Mapping[str, Any] | None, code: int, complaint: str) -> End:
    """How the client ended: only a result without error, a finished turn and exit code 0 together are a success.

    The client calls an API error a `success` and exits with 0 after some interrupts, so no one sign is enough.
    `complaint` is the end of its stderr. Without a result event something ended it before it was done.
    """
    more = f"; {complaint}" if complaint else ""
    if result is None:
        how = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
        return End(False, code, Reason.AGENT_ERROR, f"Claude Code {how} before its work was done{more}")
    text = str(result.get("result") or "")[:LAST_WORD]
    stopped = str(result.get("terminal_reason") or "completed")
    if result.get("is_error"):
        errors = [str(error) for error in result.get("errors") or []]
        what = line("; ".join(errors) or text or complaint or result.get("subtype"), 1_000)
        return End(False, code, Reason.AGENT_ERROR, what, text)
    if stopped != "completed":
        return End(False, code, Reason.AGENT_ERROR, f"Claude Code stopped: {stopped}", text)
    if code:
        return End(False, code, Reason.AGENT_ERROR, f"Claude Code exited with {code}{more}", text)
    return End(True, 0, None, "Claude Code finished", text)
