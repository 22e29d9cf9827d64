"""Is this installation able to work: each part ok, warning or broken, with the fix. Works with a broken configuration."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel

from parhelia_mcp import __version__, budget, credentials, faults, locks
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem
from parhelia_mcp.plain import line
from parhelia_mcp.verbs import status

State = Literal["ok", "warning", "broken"]
ASK_S = 5.0
MODAL_S = 30.0
LOW_MB, FULL_MB = 1024, 64
OLDEST_PYTHON = (3, 11)


class Request(BaseModel, extra="forbid"):
    """Check the installation."""


class Check(BaseModel):
    name: str
    state: State
    what: str
    fix: str | None = None
    exit_code: int = 0


class Result(BaseModel):
    ok: bool
    checks: list[Check]


def run(ctx: Context, request: Request) -> Result:
    """Every check, whatever the others find. Asks providers that are in use; starts and changes nothing."""
    checks = (
        _python,
        _programs,
        _claude,
        _credential,
        _config,
        _database,
        _disk,
        _controller,
        _faults,
        _hooks,
        _providers,
        _modal,
    )
    with ThreadPoolExecutor(len(checks)) as pool:
        found = [one for group in pool.map(lambda check: _safe(ctx, check), checks) for one in group]
    return Result(ok=all(one.state != "broken" for one in found), checks=found)


def exit_code(result: Result) -> int:
    """The code of the first broken part; 0 with warnings alone."""
    return next((one.exit_code for one in result.checks if one.state == "broken"), 0)


def _safe(ctx: Context, check: Callable[[Context], Iterator[Check]]) -> list[Check]:
    name = check.__name__.strip("_")
    try:
        return list(check(ctx))
    except Problem as problem:
        return [_broken(name, problem.message, problem.hint, problem.exit_code)]
    except OSError as problem:
        return [_broken(name, f"cannot be looked at: {problem}", "check its permissions", 7)]


def _ok(name: str, what: str) -> Check:
    return Check(name=name, state="ok", what=what)


def _warning(name: str, what: str, fix: str) -> Check:
    return Check(name=name, state="warning", what=what, fix=fix)


def _broken(name: str, what: str, fix: str, code: int) -> Check:
    return Check(name=name, state="broken", what=what, fix=fix, exit_code=code)


def _python(ctx: Context) -> Iterator[Check]:
    what = f"Python {platform.python_version()}, parhelia {__version__} in {sys.prefix}"
    if sys.version_info < OLDEST_PYTHON:
        yield _broken("python", what, "install Python 3.11 or newer", 7)
    else:
        yield _ok("python", what)


def _programs(ctx: Context) -> Iterator[Check]:
    for name, flag, need, fix in (
        ("git", "--version", "workspaces and results travel with it", "apt-get install git"),
        ("tmux", "-V", "without it local sessions have no terminal", "apt-get install tmux"),
        (
            "ssh",
            "-V",
            "without it attach uses a client of its own, and rsync and editors cannot",
            "apt-get install openssh-client",
        ),
    ):
        said = _version(ctx, name, flag)
        if said:
            yield _ok(name, said)
        elif name == "git":
            yield _broken(name, f"not in PATH: {need}", fix, 7)
        else:
            yield _warning(name, f"not in PATH: {need}", fix)


def _claude(ctx: Context) -> Iterator[Check]:
    program = ctx.loaded.config.agent.command
    said = _version(ctx, program, "--version")
    if said:
        yield _ok("claude", f"{program}: {said}")
    else:
        yield _warning(
            "claude",
            f"{program!r} is not in PATH: commands run, agents on this machine do not",
            "npm install -g @anthropic-ai/claude-code",
        )


def _version(ctx: Context, program: str, flag: str) -> str | None:
    path = shutil.which(program, path=ctx.environ.get("PATH"))
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, flag], env=ctx.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"{path} does not say its version ({type(problem).__name__})"
    return line((done.stdout or done.stderr).decode(errors="replace"), 80)


def _credential(ctx: Context) -> Iterator[Check]:
    """Present or not; the value is never shown."""
    named = ctx.loaded.config.agent.credential
    try:
        kind = credentials.resolve(ctx).kind
    except Problem as problem:
        yield _warning("credential", problem.message, problem.hint)
        return
    yield _ok("credential", f"{named} is there ({kind})")


def _config(ctx: Context) -> Iterator[Check]:
    if not ctx.loaded.faults:
        files = ", ".join(str(path) for path in ctx.loaded.files) or "defaults"
        yield _ok("config", files)
    for fault in ctx.loaded.faults:
        yield _broken("config", str(fault), fault.hint, 2)


def _database(ctx: Context) -> Iterator[Check]:
    trouble = ctx.store.integrity()
    if trouble:
        yield _broken("database", f"{ctx.store.path} is damaged: {trouble}", "parhelia reconcile --rebuild", 6)
    else:
        yield _ok("database", f"{ctx.store.path}, whole; {sum(ctx.store.counts().values())} tasks")
        wrong = budget.audit(ctx)
        if wrong:
            yield _broken("ledger", "; ".join(wrong[:3]), "parhelia reconcile --rebuild", 6)
        else:
            yield _ok("ledger", "every row adds up to what is spent and reserved")


def _disk(ctx: Context) -> Iterator[Check]:
    free = shutil.disk_usage(ctx.home).free >> 20
    what = f"{free} MiB free where {ctx.home} lies"
    fix = "parhelia checkpoint list --older-than 7d, then parhelia checkpoint delete --older-than 7d"
    if free < FULL_MB:
        yield _broken("disk", what, fix, 7)
    elif free < LOW_MB:
        yield _warning("disk", what, fix)
    else:
        yield _ok("disk", what)
    mode = ctx.home.stat().st_mode & 0o777
    if mode & 0o066:
        yield _warning("home", f"others may read {ctx.home} (mode {mode:o})", f"chmod 700 {ctx.home}")


def _controller(ctx: Context) -> Iterator[Check]:
    live = len(ctx.store.live())
    runs = locks.held(ctx.home / "controller.lock")
    if live and not runs:
        yield _warning(
            "controller", f"{live} sessions live and nothing drives them; any command starts it", "parhelia status"
        )
    else:
        yield _ok("controller", f"{'runs' if runs else 'not needed'}; {live} sessions live")


def _faults(ctx: Context) -> Iterator[Check]:
    """What nobody expected and Parhelia kept the traceback of."""
    found = faults.heads(ctx)
    if not found:
        yield _ok("faults", "no command of Parhelia failed unexpectedly")
        return
    at, id, what = found[-1]
    path = ctx.home / faults.NAME
    yield _warning(
        "faults",
        f"Parhelia itself failed {len(found)} times, last at {at} in {what} (fault {id}); the tracebacks are in {path}",
        f"send them with a bug report (parhelia report ID takes them along), then rm {path}",
    )


def _hooks(ctx: Context) -> Iterator[Check]:
    from parhelia_mcp.hook_validator import HookValidator

    report = HookValidator(home=ctx.user_home, project=ctx.cwd, environ=ctx.environ).validate()
    faults = [one for one in report.findings if one.severity in ("error", "warning")]
    for one in faults:
        make = _broken if one.severity == "error" else None
        what = f"{one.file}: {one.what}"
        yield make("hooks", what, one.fix, 2) if make else _warning("hooks", what, one.fix)
    if not faults:
        yield _ok("hooks", "every hook that Claude Code would run here acts as written")


def _providers(ctx: Context) -> Iterator[Check]:
    for one in status.providers(ctx):
        if one.ok:
            yield _ok(f"provider {one.name}", one.what)
        else:
            yield _broken(f"provider {one.name}", one.what, one.hint or "parhelia status", 5)


def _modal(ctx: Context) -> Iterator[Check]:
    """What a session there needs, asked in a child process as `status` does."""
    if not status.modal_matters(ctx):
        yield _ok("modal", f"SDK {version('modal')}; not configured, so not asked")
        return
    argv = [sys.executable, "-m", "parhelia_mcp.providers.modal.check"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=MODAL_S, env=ctx.environ, cwd=ctx.cwd, check=False)
        rows = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        yield _broken("modal", f"no answer within {MODAL_S:g} s", "https://status.modal.com, then try again", 5)
        return
    for name, state, what, fix in rows:
        code = 5 if name == "modal-reachable" else 4
        yield Check(name=name, state=state, what=what, fix=fix or None, exit_code=code if state == "broken" else 0)
