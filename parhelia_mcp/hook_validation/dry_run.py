"""Run a command hook once with a harmless sample call, and say what Claude Code would make of the answer.

It executes the hook's code, so people ask for it. The hook gets an allow-listed environment, an empty home, an
empty working directory, its own process group that is killed at the deadline, and 64 KiB of output.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parhelia_mcp.hook_validation.matchers import hits
from parhelia_mcp.hook_validation.model import TOOL_EVENTS, TOOLS, Finding, Hook
from parhelia_mcp.hook_validation.sources import Place

LONGEST = 5.0
OUTPUT = 64 << 10
SAMPLES = {
    "Bash": {"command": "true", "description": "nothing"},
    "Write": {"file_path": "sample.txt", "content": "sample"},
    "Edit": {"file_path": "sample.txt", "old_string": "a", "new_string": "b"},
    "Read": {"file_path": "sample.txt"},
}
DECISIONS = ("allow", "deny", "ask", "defer")
TOLD = {  # what an event that is not about a tool says
    "SessionStart": {"source": "startup"},
    "SessionEnd": {"reason": "other"},
    "UserPromptSubmit": {"prompt": "sample"},
    "Stop": {"stop_hook_active": False, "last_assistant_message": "sample"},
    "SubagentStop": {"stop_hook_active": False, "agent_id": "sample", "agent_type": "sample"},
    "SubagentStart": {"agent_id": "sample", "agent_type": "sample"},
    "Notification": {"message": "sample", "notification_type": "idle_prompt"},
    "PreCompact": {"trigger": "manual", "custom_instructions": ""},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int | None  # None: over the deadline
    stdout: str
    stderr: str


def check(hook: Hook, place: Place) -> Iterator[Finding]:
    """Findings from running the hook; nothing for one that is no command, or that nobody waits for."""
    if not hook.command or hook.fields.get("async") is True:
        return
    deadline = min(float(hook.fields.get("timeout", LONGEST)), LONGEST)
    with tempfile.TemporaryDirectory(prefix="parhelia-hook-") as scratch:
        outcome = _run(hook, place, Path(scratch), deadline)
    if outcome.code is None:
        what = f"No answer within {deadline:g} s. Claude Code cancels it at its timeout and lets the tool run."
        yield hook.finding("HK161", "error", what, "make it faster; its stdin ends after the event")
    elif outcome.code == 2:
        what = f"It blocks a harmless sample call: {outcome.stderr.strip()[:200]}"
        yield hook.finding("HK165", "warning", what, "print nothing and exit 0 for what it does not mean")
    elif outcome.code:
        tail = (outcome.stderr.strip().splitlines() or ["nothing on stderr"])[-1][:200]
        what = f"It ended with code {outcome.code} ({tail}). Claude Code lets the tool run."
        fix = (
            "exit 2 to block, 0 to let pass; see the error" if outcome.code == 1 else f"run it yourself: {hook.command}"
        )
        yield hook.finding("HK163" if outcome.code == 1 else "HK160", "error", what, fix)
    else:
        yield from _answer(hook, outcome.stdout.strip())


def _answer(hook: Hook, text: str) -> Iterator[Finding]:
    if not text.startswith("{"):
        if hook.event == "PreToolUse" and '"permissionDecision"' in text:
            what = "Text stands before the JSON answer, so the answer is not seen."
            yield hook.finding("HK162", "error", what, "print the JSON object alone; other text to stderr")
        return
    example = json.dumps({"hookSpecificOutput": {"hookEventName": hook.event, "permissionDecision": "deny"}})
    try:
        answer: Any = json.loads(text)
    except ValueError as problem:
        yield hook.finding("HK162", "error", f"Its answer is not JSON ({problem}).", example)
        return
    said = answer.get("hookSpecificOutput") if isinstance(answer, dict) else None
    if said is None:
        return
    if not isinstance(said, dict) or said.get("hookEventName") != hook.event:
        yield hook.finding("HK162", "error", f"Its answer lacks hookEventName {hook.event!r}: it is ignored.", example)
        return
    decision = said.get("permissionDecision")
    if decision is not None and decision not in DECISIONS:
        fix = f"one of {', '.join(DECISIONS)}"
        yield hook.finding("HK162", "error", f"permissionDecision {decision!r} is not known: it is ignored.", fix)
    elif decision == "allow":
        what = "It says allow, which skips the question to the user."
        yield hook.finding("HK164", "warning", what, "print nothing and exit 0 to let the usual rules decide")


def sample(event: str, matcher: str, cwd: Path) -> dict[str, Any]:
    """The event a hook gets on stdin, where it is about a tool for one that its matcher hits."""
    base = {"session_id": "00000000-0000-4000-8000-000000000000", "transcript_path": str(cwd / "transcript.jsonl")}
    common = {**base, "cwd": str(cwd), "permission_mode": "default", "hook_event_name": event}
    if event not in TOOL_EVENTS:
        return {**common, **TOLD.get(event, {})}
    listed = next((tool for tool in [*SAMPLES, *sorted(TOOLS)] if hits(matcher, tool)), None)
    tool = listed or (matcher if matcher.startswith("mcp__") else "Bash")
    said = {"tool_response": {"stdout": "", "stderr": "", "interrupted": False}} if event == "PostToolUse" else {}
    given = {"tool_name": tool, "tool_input": SAMPLES.get(tool, {}), "tool_use_id": "toolu_sample"}
    return {**common, **given, **said}


def _run(hook: Hook, place: Place, scratch: Path, deadline: float) -> Outcome:
    home = shlex.quote(str(place.home))
    command = re.sub(r"(?<![^\s=])~(?=/)|\$HOME\b|\$\{HOME\}", lambda _: home, hook.command)
    environ = {name: place.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TERM") if name in place.environ}
    environ |= {"HOME": str(scratch), "CLAUDE_PROJECT_DIR": str(place.project), "CLAUDECODE": "1"}
    if hook.source.root:
        environ |= {"CLAUDE_PLUGIN_ROOT": str(hook.source.root), "CLAUDE_PLUGIN_DATA": str(scratch)}
    args = hook.fields.get("args")
    argv = [command, *args] if isinstance(args, list) else ["/bin/sh", "-c", command]
    event = json.dumps(sample(hook.event, hook.matcher, scratch), separators=(",", ":")).encode()
    with (
        (scratch / "out").open("w+b") as out,
        (scratch / "err").open("w+b") as err,
        (scratch / "in").open("w+b") as given,
    ):
        given.write(event)
        given.seek(0)
        try:
            child = subprocess.Popen(
                argv, cwd=scratch, env=environ, stdin=given, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as problem:
            return Outcome(127, "", str(problem))
        try:
            code: int | None = child.wait(deadline)
        except subprocess.TimeoutExpired:
            code = None
        _end(child)
        return Outcome(code, _read(out), _read(err))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what the hook left in its group, also when it answered in time."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read(OUTPUT).decode("utf-8", "replace"))
