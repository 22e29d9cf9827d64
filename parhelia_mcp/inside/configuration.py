"""The user's Claude Code configuration in a session: laid into the agent's home before it starts, its hooks checked."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import anyio

from parhelia_mcp import files
from parhelia_mcp.errors import Corrupted
from parhelia_mcp.inside import claude_home
from parhelia_mcp.inside.agent import Room
from parhelia_mcp.spec import Agent, Configuration

OURS = "parhelia"  # below ~/.claude: what the client is given by option
PLUGINS, SERVERS = f".claude/{OURS}/plugins", f".claude/{OURS}/mcp.json"
KEPT = ("projects", "tasks")  # what an earlier session of the task left and this one goes on with
MOST_FINDINGS = 20


def hooks(agent: Agent) -> list[str]:
    """Our own hooks in the session, in words."""
    return [*(claude_home.HOOKS if agent.kind == "claude" else ()), *agent.hooks]


async def lay(room: Room) -> None:
    """Give the agent what travelled, and say how much that is. Raises Corrupted where it cannot be had."""
    told = room.spec.agent.configuration
    if told is None:
        return
    await anyio.to_thread.run_sync(_lay, room, told)
    home = room.home
    servers = _servers(home)
    text = (
        f"config: of your Claude Code configuration {told.carried} carried, {told.rewritten} rewritten, {told.dropped} "
        f"left; plugins: {len(_plugins(home))}, MCP servers: {len(servers)}; see: parhelia config diff {room.spec.session}"
    )
    room.emit("config", text, carried=told.carried, rewritten=told.rewritten, dropped=told.dropped)


async def check(room: Room) -> None:
    """Say what is wrong with the hooks that Claude Code finds here, or how many are valid.

    They are those that travelled and the project's own; what is only worth knowing on the user's machine is left out.
    """
    if room.spec.agent.kind != "claude":
        return
    from parhelia_mcp.hook_validator import HookValidator  # a command needs none of it

    home = room.home
    validator = HookValidator(home=home, project=room.workspace, environ=room.env, plugins=_plugins(home))
    report = await anyio.to_thread.run_sync(validator.validate)
    found = [finding for finding in report.findings if finding.severity != "info"]
    for each in found[:MOST_FINDINGS]:
        place = f"{each.file}#{each.pointer}" if each.pointer else each.file
        room.emit("hook", f"hook: {each.severity}[{each.code}] {place}: {each.what} Fix: {each.fix}", **each.as_dict())
    if len(found) > MOST_FINDINGS:
        room.emit("hook", f"hook: and {len(found) - MOST_FINDINGS} more findings")
    if not found:
        count = f"{report.hooks} hook{'s' * (report.hooks != 1)}"
        room.emit("hook", f"hook: {count} of yours and the project's, all valid", count=report.hooks)


def options(home: Path) -> list[str]:
    """What the client is to be told of plugins and MCP servers; no server but those that travelled is started."""
    listed = ["--mcp-config", str(home / SERVERS)] if _servers(home) else []
    return [*(part for path in _plugins(home) for part in ("--plugin-dir", str(path))), *listed, "--strict-mcp-config"]


def _plugins(home: Path) -> list[Path]:
    folder = home / PLUGINS
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _servers(home: Path) -> dict[str, Any]:
    return (files.read_json(home / SERVERS) or {}).get("mcpServers") or {}


def _lay(room: Room, told: Configuration) -> None:
    """Make the agent's `~/.claude` what travelled, in place of what an earlier session was given.

    Raises Corrupted for an archive that is not ours: the agent does not start without the rules that came for it.
    """
    import tarfile

    config = room.home / ".claude"
    if config.is_symlink():  # an agent of an earlier session may have made it, and we may be root
        config.unlink()
    files.private_dir(config)
    staging = room.session_dir / "config"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        _unpack(room.session_dir / told.archive, staging)
    except (tarfile.TarError, OSError) as problem:
        what = f"The configuration that came with the session cannot be unpacked: {problem}."
        raise Corrupted("bad-configuration", what, f"parhelia resume {room.spec.task}") from None
    carried = files.private_dir(staging / "claude")
    given = files.private_dir(staging / OURS)
    for name in ("plugins", "mcp.json"):
        if (staging / name).exists():
            (staging / name).rename(given / name)
    if room.spec.agent.delegate:
        servers = (files.read_json(given / "mcp.json") or {}).get("mcpServers") or {}
        files.replace_json(given / "mcp.json", {"mcpServers": {**servers, claude_home.DELEGATE: claude_home.server()}})
    given.rename(carried / OURS)
    _clear(config)
    for path in carried.iterdir():
        shutil.move(path, config / path.name)  # on Modal the home is on another disk
    shutil.rmtree(staging)


def _unpack(archive: Path, target: Path) -> None:
    """Only regular files, only below `target`. Raises TarError for anything else."""
    import tarfile

    with tarfile.open(archive) as packed:
        for member in packed:
            parts = PurePosixPath(member.name).parts
            source = packed.extractfile(member) if member.isreg() else None
            if source is None or not parts or parts[0] == "/" or ".." in parts:
                raise tarfile.TarError(f"{member.name[:200]!r} has no place in it")
            path = target.joinpath(*parts)
            files.private_dir(path.parent)
            files.replace(path, source.read(), mode=0o700 if member.mode & stat.S_IXUSR else 0o600)


def _clear(config: Path) -> None:
    for path in config.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
