"""Check the hooks of Claude Code, mend what is certain, or install ours into plain settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from parhelia_mcp import hook_install
from parhelia_mcp.hook_validator import HookValidator


class Request(BaseModel, extra="forbid"):
    """Say whether the hooks of Claude Code will act as written, with the exact fix for each that will not."""

    action: Literal["validate", "install"] = "validate"
    run: bool = Field(False, description="Also run each hook once with a harmless sample call")
    fix: bool = Field(False, description="Rewrite bare paths as hooks; the file as it was is kept beside it")


class Finding(BaseModel):
    code: str
    severity: Literal["error", "warning", "info"]
    file: str
    pointer: str
    what: str
    fix: str


class Change(BaseModel):
    """A file that was rewritten, and where it is as it was before."""

    file: str
    backup: str | None


class Result(BaseModel):
    ok: bool
    findings: list[Finding]
    files: list[str]
    hooks: int
    changed: list[Change] = []
    text: str = Field("", exclude=True)  # for people; JSON has the same in parts


def run(ctx: Any, request: Request) -> Result:
    """Do what was asked and then validate; `ok` false is broken hooks (exit 2). Needs no configuration of ours."""
    validator = HookValidator()
    changed: list[Change] = []
    if request.action == "install":
        folder = os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude"
        done = hook_install.install(Path(folder) / "settings.json")
        if done.changed:
            changed = [Change(file=str(done.settings), backup=str(done.backup) if done.backup else None)]
    elif request.fix:
        changed = [Change(file=str(file), backup=str(backup)) for file, backup in validator.fix()]
    report = validator.validate(run=request.run)
    lines = [f"Rewrote {change.file}" + (f" (before: {change.backup})" * bool(change.backup)) for change in changed]
    return Result(**report.as_dict(), changed=changed, text="\n".join([*lines, str(report)]))
