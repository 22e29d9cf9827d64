"""What of a person's Claude Code configuration travels into a session: instructions, skills, agents, commands, hooks,
permissions, plugins and MCP servers that need no secret. Credentials, history, other projects and environment blocks
never do. Every file and setting that was seen stands in the receipt: carried, rewritten, or left behind and why.

Result in `target`: `claude/` (becomes `~/.claude`), `plugins/NAME/` (one `--plugin-dir` each), `mcp.json` (`--mcp-config`).
The project's own files travel with the workspace; only its `.mcp.json` is looked at here.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parhelia_mcp import files
from parhelia_mcp.hook_validation.sources import Place, parsed, sources

SETTINGS = frozenset(
    "hooks permissions model outputStyle includeCoAuthoredBy attribution alwaysThinkingEnabled disableAllHooks".split()
)
FOLDERS = ("skills", "agents", "commands", "hooks", "output-styles", "rules")
NEVER = {  # names in ~/.claude that stay, and why
    ".credentials.json": "credentials",
    "history.jsonl": "history",
    "projects": "conversations of all projects",
    "tasks": "conversations of all projects",
    "todos": "conversations of all projects",
    "backups": "copies of credentials",
    "shell-snapshots": "environment of a shell",
    "session-env": "environment of a shell",
    "mcp-needs-auth-cache.json": "credentials",
    "settings.local.json": "of this machine only",
}
PRIVATE = re.compile(
    r"(^|/)(\.git|\.env[^/]*|\.netrc|\.npmrc|\.pypirc|\.ssh|\.aws|id_(rsa|dsa|ecdsa|ed25519)[^/]*"
    r"|[^/]*credentials?[^/]*\.(json|toml|ini|ya?ml)|[^/]*\.(pem|key|p12|pfx|kdbx))(/|$)",
    re.IGNORECASE,
)
SECRET = re.compile(
    rb"sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    rb"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|hf_[A-Za-z0-9]{20,}|a[ks]-[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{30,}"
    rb"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/\s:@]+:[^/\s@]+@"
    rb"|(?i:(?:api[_-]?key|secret|token|passw(?:or)?d|authorization)[\"']?\s*[:=]\s*"
    rb"(?:[\"'](?:bearer\s+)?(?![$<{])[^\"'\s]{12,}[\"']|(?:bearer\s+)?(?=[\w+/.=-]*\d)[\w+/.=-]{16,}))"
)
REMOVED = b"[removed: it looked like a key]"
LARGEST = 5 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One file, setting or server; `note` is its size, what was changed, or why it stays."""

    name: str
    note: str


@dataclass(slots=True)
class Receipt:
    """What travels and what does not; holds names, never values."""

    carried: list[Item] = field(default_factory=list)
    rewritten: list[Item] = field(default_factory=list)
    dropped: list[Item] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect(home: Path, project: Path, target: Path, *, own_server: bool = False) -> Receipt:
    """Fill the empty directory `target` with what may travel. Reads only; raises OSError where `target` cannot be written.

    `own_server` also carries Parhelia's MCP server, so that a session can start sessions of its own.
    """
    receipt = Receipt()
    config = home / ".claude"
    carried = files.private_dir(target / "claude")
    _file(config / "CLAUDE.md", config, carried / "CLAUDE.md", "~/.claude/CLAUDE.md", receipt)
    for folder in FOLDERS:
        _tree(config / folder, carried / folder, f"~/.claude/{folder}", receipt)
    for name, why in NEVER.items():
        if (config / name).exists():
            receipt.dropped.append(Item(f"~/.claude/{name}", why))
    if (home / ".claude.json").exists():
        receipt.dropped.append(
            Item("~/.claude.json", "account, keys and other projects; only its MCP servers are looked at")
        )
    settings = _settings(parsed(config / "settings.json"), home, project, receipt)
    if settings:
        files.replace_json(carried / "settings.json", settings)
    _plugins(home, project, target, receipt)
    files.replace_json(target / "mcp.json", {"mcpServers": _servers(home, project, receipt, own_server)})
    return receipt


def _tree(source: Path, target: Path, name: str, receipt: Receipt) -> None:
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        inner = path.relative_to(source)
        if path.is_file() or path.is_symlink():
            _file(path, source, target / inner, f"{name}/{inner.as_posix()}", receipt)


def _file(source: Path, root: Path, target: Path, name: str, receipt: Receipt) -> None:
    """Copy one file, or say why not. In Markdown what looks like a key is taken out; any other such file stays."""
    if not source.exists():
        return
    if why := _private(source, root):
        if "/.git/" not in name:
            receipt.dropped.append(Item(name, why))
        return
    data = source.read_bytes()
    if SECRET.search(data):
        if source.suffix != ".md":
            receipt.dropped.append(Item(name, "it holds what looks like a key"))
            return
        data = SECRET.sub(REMOVED, data)
        receipt.rewritten.append(Item(name, "what looks like a key was taken out"))
    files.private_dir(target.parent)
    files.replace(target, data, mode=0o700 if source.stat().st_mode & stat.S_IXUSR else 0o600)
    receipt.carried.append(Item(name, f"{len(data)} bytes"))


def _private(source: Path, root: Path) -> str:
    if not source.resolve().is_relative_to(root.resolve()):
        return "a link that leads outside"
    if PRIVATE.search(source.relative_to(root).as_posix()):
        return "its name says that it is private"
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    return "larger than 5 MiB" if found.st_size > LARGEST else ""


def _settings(given: Any, home: Path, project: Path, receipt: Receipt) -> dict[str, Any]:
    """The settings that are safe and mean the same elsewhere, with this machine's paths replaced."""
    if not isinstance(given, dict):
        return {}
    kept = {}
    for key, value in given.items():
        name = f"~/.claude/settings.json {key}"
        if key not in SETTINGS:
            receipt.dropped.append(Item(name, _why(key)))
        elif key == "hooks":
            kept[key] = _hooks(value, home, project, receipt)
        elif SECRET.search(json.dumps(value).encode()):
            receipt.dropped.append(Item(name, "it holds what looks like a key"))
        else:
            kept[key] = json.loads(_elsewhere(json.dumps(value), home, project))
            receipt.carried.append(Item(name, "as it is" if kept[key] == value else "paths rewritten"))
    return kept


def _why(key: str) -> str:
    if key == "env":
        return "environment block"
    if key.endswith(("Helper", "Refresh", "Export")):
        return "credential helper"
    if key in ("enabledPlugins", "extraKnownMarketplaces"):
        return "plugins are carried as directories"
    return "not known to be safe and useful elsewhere"


def _elsewhere(text: str, home: Path, project: Path) -> str:
    """`text` with this machine's project and home as the variables that a session has."""
    text = re.sub(re.escape(str(project)) + r"(?=[/\"'\s]|$)", "$CLAUDE_PROJECT_DIR", text)
    return re.sub(re.escape(str(home)) + r"(?=[/\"'\s]|$)", "$HOME", text)


def _hooks(given: Any, home: Path, project: Path, receipt: Receipt) -> Any:
    """Command hooks whose scripts travel too; a hook without its script would let every call pass unseen."""
    if not isinstance(given, dict):
        return given
    kept: dict[str, list[Any]] = {}
    for event, groups in given.items():
        for number, group in enumerate(groups if isinstance(groups, list) else ()):
            name = f"~/.claude/settings.json hooks/{event}/{number}"
            handlers = group.get("hooks") if isinstance(group, dict) else None
            fit = [hook for hook in handlers or () if isinstance(hook, dict) and not _unfit(hook, home, project)]
            if isinstance(handlers, list) and len(fit) < len(handlers) or handlers is None:
                why = next((w for hook in handlers or () if (w := _unfit(hook, home, project))), "malformed")
                receipt.dropped.append(Item(name, why))
            if fit:
                whole = json.dumps({**group, "hooks": fit})
                rewritten = _elsewhere(whole, home, project)
                kept.setdefault(event, []).append(json.loads(rewritten))
                items = receipt.carried if rewritten == whole else receipt.rewritten
                items.append(Item(name, "as it is" if rewritten == whole else "paths of this machine replaced"))
    return kept


def _unfit(hook: Any, home: Path, project: Path) -> str:
    """Why a hook stays here; empty when it travels."""
    if not isinstance(hook, dict) or hook.get("type") != "command" or not isinstance(hook.get("command"), str):
        return "malformed, or not a command"
    text = json.dumps(hook)
    if SECRET.search(text.encode()):
        return "it holds what looks like a key"
    elsewhere = re.sub(r"(~|\$HOME|\$\{HOME\})(?=/)", "$HOME", _elsewhere(text, home, project))
    if re.search(r"\$HOME/(?!\.claude/(hooks|skills|commands)/)", elsewhere):
        return "its script lies outside ~/.claude/hooks"
    return ""


def _plugins(home: Path, project: Path, target: Path, receipt: Receipt) -> None:
    place = Place(home, project, {})
    for name, root in _enabled(place):
        if name.partition("@")[0] == "parhelia":
            receipt.dropped.append(Item(f"plugin {name}", "Parhelia itself"))
            continue
        folder = target / "plugins" / re.sub(r"[^\w.-]", "-", name)
        servers = parsed(root / ".mcp.json")
        named = servers.get("mcpServers", servers) if isinstance(servers, dict) else {}
        _tree(root, folder, f"plugin {name}", receipt)
        if any(_needs_secret(server, home) for server in named.values() if isinstance(server, dict)):
            (folder / ".mcp.json").unlink(missing_ok=True)
            receipt.dropped.append(Item(f"plugin {name}/.mcp.json", "a server in it needs a secret"))
        if folder.is_dir():
            receipt.plugins.append(folder.name)


def _enabled(place: Place) -> Iterator[tuple[str, Path]]:
    installed = parsed(place.config / "plugins" / "installed_plugins.json")
    plugins = installed.get("plugins") if isinstance(installed, dict) else None
    enabled: dict[str, Any] = {}
    for source in sources(place):
        data = parsed(source.path) if source.kind == "user" else None
        enabled.update((data.get("enabledPlugins") or {}) if isinstance(data, dict) else {})
    for name, entries in (plugins or {}).items():
        path = entries[0].get("installPath") if entries and isinstance(entries[0], dict) else None
        if enabled.get(name) is True and isinstance(path, str) and Path(path).is_dir():
            yield name, Path(path)


def _servers(home: Path, project: Path, receipt: Receipt, own_server: bool) -> dict[str, Any]:
    """The user's and the project's MCP servers that work without anything secret and without this machine's files."""
    kept: dict[str, Any] = {}
    for where, path in (("~/.claude.json", home / ".claude.json"), (".mcp.json", project / ".mcp.json")):
        data = parsed(path)
        servers = data.get("mcpServers") if isinstance(data, dict) else None
        for name, server in (servers or {}).items() if isinstance(servers, dict | None) else ():
            label = f"MCP server {name} in {where}"
            if _is_ours(name, server) and not own_server:
                receipt.dropped.append(Item(label, "Parhelia itself; a session starts no sessions unless asked"))
            elif why := _needs_secret(server, home):
                receipt.dropped.append(Item(label, why))
            else:
                kept[name] = server
                receipt.carried.append(Item(label, "as it is"))
    return kept


def _is_ours(name: str, server: Any) -> bool:
    return name == "parhelia" or "parhelia-mcp" in json.dumps(server)


def _needs_secret(server: Any, home: Path) -> str:
    """Why an MCP server stays here; empty when it needs nothing that does."""
    if not isinstance(server, Mapping):
        return "malformed"
    for name in ("env", "headers", "headersHelper", "oauth"):
        if server.get(name):
            return f"it has {name}, which may hold a secret"
    text = json.dumps(dict(server))
    if SECRET.search(text.encode()) or re.search(
        r"--?(api[-_]?key|token|secret|password)\b|\$\{?\w*(KEY|TOKEN|SECRET)", text
    ):
        return "it is given a secret"
    url = urlsplit(str(server.get("url") or ""))
    if url.username or url.query:
        return "its address may hold a secret"
    return "its program lies in your home" if str(home) in text or '"~/' in text else ""
