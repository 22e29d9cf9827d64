"""What the hook inside a session does about a call: ask the runner, and say what the client has to know."""

from __future__ import annotations

import json
import os
import socket

from parhelia_mcp.inside.risky import risky


def answer(data: bytes) -> str:
    """What to print for the event in `data`; empty when there is nothing to say."""
    event = json.loads(data)
    tool, given = str(event.get("tool_name", "")), event.get("tool_input") or {}
    acts = event.get("hook_event_name") == "PreToolUse"
    said = before_tool(tool, str(given.get("command", ""))) if acts else None
    return json.dumps({"hookSpecificOutput": said}) + "\n" if said else ""


def ask(op: str, args: dict[str, object]) -> dict[str, object]:
    """The runner's result for one request. Raises OSError or ValueError where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(os.environ["PARHELIA_CONTROL"])
        channel.sendall(json.dumps({"id": f"hook-{os.getpid()}", "op": op, "args": args}).encode() + b"\n")
        with channel.makefile("rb") as lines:
            answer = json.loads(lines.readline())
    if not answer["ok"]:
        raise ValueError(answer["error"]["message"])
    return dict(answer.get("result") or {})


def before_tool(tool: str, command: str) -> dict[str, object] | None:
    if not command or not risky(command):
        return None
    try:
        ask("checkpoint", {"trigger": "risky", "tool": tool, "command": command[:4096]})
    except (OSError, ValueError, KeyError, TypeError) as problem:
        told = f"Parhelia could not take a checkpoint before this command ({problem}). What it destroys cannot be brought back."
        return {"hookEventName": "PreToolUse", "additionalContext": told}
    return None
