"""How a session ended, and the words for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from parhelia_mcp.inside.agent import End
from parhelia_mcp.inside.limits import Ending
from parhelia_mcp.model import Reason, State
from parhelia_mcp.plain import many
from parhelia_mcp.spec import Spec


def judge(end: End | None, ending: Ending | None, disk_full: str) -> dict[str, Any]:
    """State, reason, exit code and detail. What the runner ended for comes first, then what the agent says.

    `disk_full` is what was seen of a full disk when the agent had ended: it explains a failure, and no success.
    """
    code = end.exit_code if end else None
    if ending is not None:
        return _outcome(ending.state, ending.reason, code, ending.detail)
    if end is None:
        return _outcome(State.FAILED, Reason.START_FAILED, code, "the agent was never started")
    if end.ok:
        return _outcome(State.COMPLETED, end.reason or Reason.AGENT_EXIT, code, end.detail)
    if disk_full:
        return _outcome(State.FAILED, Reason.DISK_FULL, code, f"{end.detail}; {disk_full}")
    return _outcome(State.FAILED, end.reason or Reason.AGENT_ERROR, code, end.detail)


def _outcome(state: State, reason: Reason, code: int | None, detail: str) -> dict[str, Any]:
    return {"state": state.value, "reason": reason.value, "exit_code": code, "detail": detail}


def last_line(outcome: dict[str, Any], collected: dict[str, Any]) -> str:
    """The last line of the session's log: what ended it, in the words that people search for."""
    work = (
        f"{many(collected['files_changed'], 'file')} changed, {collected['commit'][:12]}"
        if collected["commit"]
        else "no changes"
    )
    word = {State.COMPLETED: "completed", State.KILLED: "killed"}.get(outcome["state"], "error")
    return f"{word}: {outcome['detail']} ({outcome['reason']}); {work}"


def configuration(told: Spec) -> str:
    """What the session was told, in one line."""
    limits = told.limits
    parts = [
        f"agent {told.agent.kind}",
        f"model {told.agent.model}" if told.agent.model else "",
        f"permission mode {told.agent.permission_mode}" if told.agent.permission_mode else "",
        f"deadline {limits.deadline}" if limits.deadline else "",
        f"memory {limits.memory_gb:g} GiB" if limits.memory_gb else "",
        f"at most ${limits.max_usd:g}" if limits.max_usd is not None else "",
    ]
    return ", ".join(filter(None, parts))


def message(told: Spec) -> str:
    """The message of the commit that holds what the agent left uncommitted."""
    return brief(told.prompt or " ".join(told.command or ()) or told.session)


def brief(text: str) -> str:
    """The first line of `text`, at most 100 characters."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= 100 else first[:100] + "..."


def slug(workspace: Path) -> str:
    """The directory's name under which Claude Code keeps the conversations of a workspace."""
    return re.sub(r"[^A-Za-z0-9]", "-", str(workspace.resolve()))
