"""The files around Claude Code in a session: what it must find in its HOME, and where its conversation lies."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.errors import LocalFault

SETTINGS = ".claude/parhelia-settings.json"
SCREEN_SETTINGS = ".claude/parhelia-screen-settings.json"
# What a full-screen client tells of itself.
EVENTS = ("SessionStart", "UserPromptSubmit", "PreToolUse", "PermissionRequest", "PostToolUse", "Stop", "StopFailure")
HOOK_S = 86_400  # past its time a hook is left out and the tool runs: a person may take long to answer
DELEGATE = "parhelia"  # our MCP server in a session that may hand work on
DELEGATE_TOOLS = f"mcp__{DELEGATE}"
HOOKS = ("a checkpoint before risky commands (PreToolUse Bash)",)
TAKEN_IN = re.compile(rb'"source_uuid":"([0-9a-f-]{36})"')
SWITCHES = {  # nothing but the Messages API is called
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


def environment(given: Mapping[str, str], port: int, token: str, credential_kind: str, mode: str) -> dict[str, str]:
    """What the client needs beside the session's `given` environment: the meter's address, and to call nobody else.

    With an OAuth upstream the token goes where the client expects one, so that it adds the headers that go with it.
    """
    name = "CLAUDE_CODE_OAUTH_TOKEN" if credential_kind == "oauth" else "ANTHROPIC_AUTH_TOKEN"
    direct = ",".join(filter(None, (given.get("NO_PROXY") or given.get("no_proxy"), "127.0.0.1,localhost")))
    sandbox = {"IS_SANDBOX": "1"} if mode == "bypassPermissions" and os.geteuid() == 0 else {}
    return {
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}",
        name: token,
        "NO_PROXY": direct,
        "no_proxy": direct,
        **SWITCHES,
        **sandbox,
    }


def write(
    home: Path,
    workspace: Path,
    env: Mapping[str, str],
    mode: str,
    tell: Path | None = None,
    *,
    delegates: bool = False,
) -> Path:
    """Write what keeps the client from asking first-run questions, and our settings, whose path is returned.

    With `tell`, the program that tells the runner an event, they are those of a full-screen client. One that `delegates`
    is not asked about our tools: the user said so by giving them.

    A repository's settings may set variables and would redirect the client; those named in our settings win. The
    other ways to give a key are pinned to nothing for the same reason.
    """
    first_run = home / ".claude.json"
    known = _known(first_run)
    project = str(workspace.resolve())
    projects = known.get("projects") or {}
    trusted = {**projects, project: {**projects.get(project, {}), "hasTrustDialogAccepted": True}}
    files.replace_json(first_run, {**known, "hasCompletedOnboarding": True, "projects": trusted})
    settings = home / (SCREEN_SETTINGS if tell else SETTINGS)
    files.private_dir(settings.parent)
    files.replace_json(settings, _settings(env, mode, tell, (DELEGATE_TOOLS,) if delegates else ()))
    return settings


def _known(first_run: Path) -> dict[str, Any]:
    try:
        return files.read_json(first_run) or {}
    except LocalFault:  # what a client that was killed left there; it is no loss
        return {}


def server() -> dict[str, Any]:
    """Our MCP server in a session, as the client is told of it."""
    script = Path(__file__).with_name("delegate_server.py")
    return {"command": sys.executable, "args": ["-I", "-S", str(script)]}


def _settings(env: Mapping[str, str], mode: str, tell: Path | None, allowed: tuple[str, ...]) -> dict[str, Any]:
    script = Path(__file__).with_name("session_hook.py")
    hooks = {"PreToolUse": [{"matcher": "Bash", **_hook(shlex.join((sys.executable, "-I", "-S", str(script))))}]}
    for event in EVENTS if tell else ():
        hooks.setdefault(event, []).append(_hook(f"{tell} event"))
    keys = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "", "CLAUDE_CODE_OAUTH_TOKEN": ""}
    return {
        "env": {**keys, **env},
        "cleanupPeriodDays": 365,
        "skipDangerousModePermissionPrompt": True,
        "permissions": {
            "defaultMode": mode,
            "allow": [*(("Bash(git:*)",) if mode == "acceptEdits" else ()), *allowed],
        },
        "disableAllHooks": False,
        "hooks": hooks,
    }


def _hook(command: str) -> dict[str, Any]:
    return {"hooks": [{"type": "command", "command": command, "timeout": HOOK_S}]}


def taken_in(path: Path | None) -> set[str]:
    """The ids of the messages that the conversation took in during a turn.

    After a restart the client knows all others again by their id and leaves them alone, but would run these twice.
    """
    if path is None:
        return set()
    with path.open("rb") as stored:
        return {found.decode() for text in stored for found in TAKEN_IN.findall(text)}
