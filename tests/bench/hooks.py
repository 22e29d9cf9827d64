"""What a hook adds to a tool call, beside a bare interpreter that does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from parhelia_mcp import prices
from parhelia_mcp.inside import session_hook
from tests import setup
from tests.bench import Row, at_most, medians

RUN = str(setup.ROOT / "hooks" / "run")
ROUNDS = 60
QUIET = "git status && ls -la src"
DECISIONS = {
    "spending": "parhelia submit 'do it' --max-usd 30",
    "loss": "parhelia session kill task-abcdefgh",
    "hint": "torchrun --nproc 8 main.py",
}


def rows(workdir: Path) -> list[Row]:
    numbers = {"seq": 1, "ceiling_usd": 25, "spent_usd": 1, "reserved_usd": 0, "warning_threshold": 0.8}
    (workdir / "budget.json").write_text(json.dumps({**numbers, "rates": prices.rates()}))
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    env = {"PATH": "/usr/bin:/bin", "PARHELIA_HOME": str(workdir), "PARHELIA_PYTHON": python, "PARHELIA_HINT": "ask"}
    bare = [python, "-I", "-S"]

    def hook(name: str, command: str) -> Callable[[], object]:
        argv = [*bare, session_hook.__file__] if name == "session" else ["sh", RUN, name]
        return _given(argv, _event(command), env, workdir)

    quiet = {name: hook(name, QUIET.replace("git", "cat")) for name in (*DECISIONS, "session")}
    decided = {f"{name}!": hook(name, command) for name, command in DECISIONS.items()}
    took = medians({"bare": _given([*bare, "-c", "pass"], b"", env, workdir), **quiet, **decided}, ROUNDS, warmup=3)
    return [
        *(at_most(f"hook {name}, nothing to say, beside bare python", took[name] / took["bare"], "x", 1.1) for name in quiet),
        *(at_most(f"hook {name[:-1]}, decision, beside bare python", took[name] / took["bare"], "x", 1.7) for name in decided),
    ]  # fmt: skip


def _event(command: str) -> bytes:
    base = {
        "session_id": os.urandom(8).hex(),
        "cwd": "/",
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
    }
    given = {"tool_name": "Bash", "tool_input": {"command": command}, "tool_use_id": "toolu_1"}
    return json.dumps({**base, **given}, separators=(",", ":")).encode()


def _given(argv: list[str], stdin: bytes, env: dict[str, str], workdir: Path) -> Callable[[], object]:
    """A candidate that runs a program with `stdin`, as in a session that was told nothing yet."""

    def run() -> None:
        (workdir / "hinted").unlink(missing_ok=True)
        subprocess.run(argv, input=stdin, env=env, capture_output=True, check=True)

    return run
