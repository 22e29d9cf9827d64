"""Set up for this user: a commented settings file, what is still missing, how Claude Code is connected. Safe to repeat."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pydantic import BaseModel

from parhelia_mcp import config, credentials, files
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem

PACKAGE = Path(config.__file__).parent
NEEDED = {"git": "carries your work to a session and back", "tmux": "lets you attach", "ssh": "lets you attach"}


class Request(BaseModel, extra="forbid"):
    """Write the settings file unless there is one."""

    only_print: bool = False


class Check(BaseModel):
    name: str
    ok: bool
    what: str


class Result(BaseModel):
    path: str
    written: bool
    template: str
    checks: list[Check]
    claude_code: list[str]
    next: str


def run(ctx: Context, request: Request) -> Result:
    """An existing file is never touched: what is wrong in it is among the checks."""
    path = config.user_file(ctx.environ)
    write = not request.only_print and not path.exists()
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, template().encode())
    return Result(
        path=str(path),
        written=write,
        template=template(),
        checks=_checks(ctx),
        claude_code=_claude_code(),
        next="parhelia run -- echo hello",
    )


def template() -> str:
    """Every key with its default or an example, all in comments."""
    return (PACKAGE / "parhelia.toml").read_text()


def _checks(ctx: Context) -> list[Check]:
    found = []
    for program, use in NEEDED.items():
        where = shutil.which(program, path=ctx.environ.get("PATH"))
        found.append(Check(name=program, ok=bool(where), what=where or f"not found; it {use}"))
    faults = ctx.loaded.faults
    found.append(Check(name="settings", ok=not faults, what=str(faults[0]) if faults else "right"))
    settings = ctx.loaded.config.agent
    agent = shutil.which(settings.command, path=ctx.environ.get("PATH"))
    missing = "not found; submit needs it: npm install -g @anthropic-ai/claude-code (run does without)"
    return [*found, Check(name=settings.command, ok=bool(agent), what=agent or missing), _credential(ctx)]


def _credential(ctx: Context) -> Check:
    try:
        credentials.resolve(ctx)
    except Problem as problem:
        return Check(name="credential", ok=False, what=f"{problem.message} {problem.hint}")
    return Check(name="credential", ok=True, what=ctx.loaded.config.agent.credential)


def _claude_code() -> list[str]:
    """The command lines that connect Claude Code: the plugin where this is a checkout, the tools and hooks anywhere."""
    ours = Path(sys.argv[0]).with_name("parhelia")
    command = str(ours) if ours.is_file() else "parhelia"
    lines = [f"claude mcp add --scope user parhelia -- {command} mcp", f"{command} hooks install"]
    if (PACKAGE.parent / ".claude-plugin").is_dir():
        plugin = [f"claude plugin marketplace add {PACKAGE.parent}", "claude plugin install parhelia@parhelia"]
        return [*plugin, *(f"# without the plugin: {line}" for line in lines)]
    return lines
