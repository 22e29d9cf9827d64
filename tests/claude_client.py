"""How tests run the real Claude Code: where it is, and a home and an environment in which it talks to loopback only."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests import setup

TOKEN = "token-of-a-test"


def claude_path() -> Path:
    """The pinned client; `tests/setup.py test` puts it there."""
    path = setup.claude()
    assert path.exists(), "run: .venv/bin/python tests/setup.py test"
    return path


def client_env(
    home: Path, url: str, *, token: str = TOKEN, auth: str = "ANTHROPIC_AUTH_TOKEN", trust: tuple[Path, ...] = ()
) -> dict[str, str]:
    """Write `home` so that nothing asks a first-run question, and return the whole environment.

    `auth` names the variable that carries the token (ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN or
    CLAUDE_CODE_OAUTH_TOKEN); `trust` are the directories whose trust question counts as answered.
    """
    home.mkdir(parents=True, exist_ok=True)
    answers = {
        "hasCompletedOnboarding": True,
        "projects": {str(path.resolve()): {"hasTrustDialogAccepted": True} for path in trust},
        "customApiKeyResponses": {"approved": [token[-20:]], "rejected": []},
    }
    (home / ".claude.json").write_text(json.dumps(answers))
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
        "TERM": "xterm-256color",
        "ANTHROPIC_BASE_URL": url,
        auth: token,
        "NO_PROXY": "127.0.0.1,localhost",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # lets root use bypassPermissions
    }
