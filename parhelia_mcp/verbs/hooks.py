"""Check the hooks of Claude Code, mend what is certain, or install ours into plain settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from parhelia_mcp import hook_install
from parhelia_mcp.context import Context
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
    changed: list[Change]
    text: str = Field(exclude=True)  # for people; JSON has the same in parts


def run(ctx: Context, request: Request) -> Result:
    """Do what was asked and then validate; `ok` false is broken hooks. Needs no configuration of ours."""
    validator = HookValidator(home=ctx.user_home, project=ctx.cwd, environ=ctx.environ)
    changed: list[Change] = []
    if request.action == "install":
        done = hook_install.install(validator.user_settings)
        if done.changed:
            changed = [Change(file=str(done.settings), backup=str(done.backup) if done.backup else None)]
    elif request.fix:
        changed = [Change(file=str(file), backup=str(backup)) for file, backup in validator.fix()]
    report = validator.validate(run=request.run)
    return Result(**report.as_dict(), changed=changed, text=str(report))
