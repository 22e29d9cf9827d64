"""What of a person's Claude Code configuration travels into a session: instructions, skills, agents, commands, hooks,
permissions, plugins and MCP servers that need no secret. Credentials, history, other projects and environment blocks
never do, and Parhelia itself does not, unless asked (`handing_on`). Every file and setting that was seen stands in the
receipt: carried, rewritten, or left behind and why. What cannot be read is left behind too; it never stops a submit.

Result in `target`: `claude/` (becomes `~/.claude`), `plugins/NAME/` (one `--plugin-dir` each), `mcp.json` (`--mcp-config`).
The project's own files travel with the workspace; only its `.mcp.json` is looked at here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.hook_validation.sources import Place, parsed, sources
from parhelia_mcp.plain import many
from parhelia_mcp.spec import Configuration

ARCHIVE, RECEIPT = "config.tar", "receipt.json"  # in the session's directory
SETTINGS = frozenset(
    "hooks permissions model outputStyle includeCoAuthoredBy attribution alwaysThinkingEnabled".split()
)
RULES = ("allow", "ask", "deny")  # of `permissions`; the mode is the session's own, directories are this machine's
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
OURS = "Parhelia stays home: from a session nothing reaches the budget, the key or other sessions, so none starts any"
IN_PLACE = "the session's own takes its place, with `submit` and `status` alone"
REMOVED = b"[removed: it looked like a key]"
LARGEST = 5 << 20  # of a file
MOST_BYTES, MOST_FILES = 10 << 20, 2_000  # of a skill, a plugin
STRICT = "a session starts only the MCP servers that are listed, and none of a plugin"


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


def handing_on(levels: int, usd: float) -> str:
    """What the receipt says of a server of ours in the session; nothing where it has none."""
    return f"{many(levels, 'level')} deep; what it hands on comes out of its ${usd:.2f}" if levels else ""


def pack(place: Place, session_dir: Path, ours: str = "") -> Configuration:
    """Collect into one archive in the session's directory, with the receipt beside it; what the session is told of them."""
    with tempfile.TemporaryDirectory(prefix=".config-", dir=session_dir) as scratch:
        collected, draft = Path(scratch, "collected"), Path(scratch, ARCHIVE)
        receipt = collect(place, collected, ours)
        with tarfile.open(draft, "w") as archive:
            draft.chmod(0o600)
            for path in sorted(path for path in collected.rglob("*") if path.is_file()):
                archive.add(path, str(path.relative_to(collected)))
        draft.replace(session_dir / ARCHIVE)
    files.replace_json(session_dir / RECEIPT, receipt.as_dict())
    return Configuration(ARCHIVE, len(receipt.carried), len(receipt.rewritten), len(receipt.dropped))


def collect(place: Place, target: Path, ours: str = "") -> Receipt:
    """Fill the empty directory `target` with what may travel. Reads only; raises OSError where `target` cannot be written.

    `ours` says how far a server of ours in the session may go, where it gets one.
    """
    receipt = Receipt(dropped=[Item("Parhelia's own MCP server and plugin", OURS)])
    config = place.config
    carried = files.private_dir(target / "claude")
    for path in sorted(config.iterdir()) if config.is_dir() and os.access(config, os.R_OK | os.X_OK) else ():
        name = f"{place.config_name}/{path.name}"
        if path.name in FOLDERS and path.is_dir():
            for inner in sorted(path.iterdir()) if os.access(path, os.R_OK | os.X_OK) else ():
                _any(inner, path, carried / path.name / inner.name, f"{name}/{inner.name}", receipt)
        elif path.suffix == ".md":  # CLAUDE.md, and what it may include
            _file(path, config, carried / path.name, name, receipt)
        elif path.name not in ("settings.json", "plugins") and path != place.account:
            receipt.dropped.append(Item(name, NEVER.get(path.name, "not known to be useful elsewhere")))
    if place.account.exists():
        receipt.dropped.append(
            Item(place.account_name, "account, keys and other projects; only its MCP servers are looked at")
        )
    settings = _settings(place, receipt)
    if settings:
        files.replace_json(carried / "settings.json", settings)
    _plugins(place, target, receipt)
    files.replace_json(target / "mcp.json", {"mcpServers": _servers(place, receipt)})
    if ours:
        receipt.dropped = [Item(item.name, IN_PLACE) if item.note == OURS else item for item in receipt.dropped]
        receipt.carried.append(Item("MCP server parhelia in the session", f"the tools submit and status; {ours}"))
    return receipt


def _any(source: Path, root: Path, target: Path, name: str, receipt: Receipt) -> None:
    if source.is_dir() and not source.is_symlink():
        _tree(source, target, name, receipt)
    else:
        _file(source, root, target, name, receipt)


def _tree(source: Path, target: Path, name: str, receipt: Receipt) -> None:
    """Copy a directory but for `.git`, or leave it behind as a whole where it is too large."""

    def unreadable(problem: OSError) -> None:
        receipt.dropped.append(Item(name, f"a directory in it cannot be read: {problem.strerror}"))

    paths: list[Path] = []
    for folder, inner, names in os.walk(source, onerror=unreadable):
        inner[:] = [each for each in inner if each != ".git"]
        paths += [Path(folder, each) for each in (*names, *inner) if each in names or Path(folder, each).is_symlink()]
    if len(paths) > MOST_FILES or sum(path.lstat().st_size for path in paths) > MOST_BYTES:
        receipt.dropped.append(Item(name, f"more than {MOST_FILES:,} files or {MOST_BYTES >> 20} MiB"))
        return
    for path in sorted(paths):
        where = path.relative_to(source)
        _file(path, source, target / where, f"{name}/{where.as_posix()}", receipt)


def _file(source: Path, root: Path, target: Path, name: str, receipt: Receipt) -> None:
    """Copy one file, or say why not. In Markdown what looks like a key is taken out; any other such file stays."""
    try:
        if why := _private(source, root):
            receipt.dropped.append(Item(name, why))
            return
        data, mode = source.read_bytes(), source.stat().st_mode
    except OSError as problem:
        receipt.dropped.append(Item(name, f"it cannot be read: {problem.strerror}"))
        return
    if SECRET.search(data):
        if source.suffix != ".md":
            receipt.dropped.append(Item(name, "it holds what looks like a key"))
            return
        data = SECRET.sub(REMOVED, data)
        receipt.rewritten.append(Item(name, "what looks like a key was taken out"))
    files.private_dir(target.parent)
    files.replace(target, data, mode=0o700 if mode & stat.S_IXUSR else 0o600)
    receipt.carried.append(Item(name, f"{len(data)} bytes"))


def _private(source: Path, root: Path) -> str:
    """Why a file stays, by its place, name and size; empty when it may travel. Raises OSError."""
    if not source.exists():
        return "a link that leads nowhere"
    if not source.resolve().is_relative_to(root.resolve()):
        return "a link that leads outside"
    if PRIVATE.search(source.relative_to(root).as_posix()):
        return "its name says that it is private"
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    return "larger than 5 MiB" if found.st_size > LARGEST else ""


def _settings(place: Place, receipt: Receipt) -> dict[str, Any]:
    """The settings that are safe and mean the same elsewhere, with this machine's paths replaced."""
    path, called = place.config / "settings.json", f"{place.config_name}/settings.json"
    given = parsed(path)
    if not isinstance(given, dict):
        if path.exists():
            receipt.dropped.append(Item(called, "not a JSON object; Claude Code ignores it too"))
        return {}
    kept: dict[str, Any] = {}
    for key, value in given.items():
        name = f"{called} {key}"
        if key not in SETTINGS:
            receipt.dropped.append(Item(name, _why(key)))
        elif key == "hooks" and given.get("disableAllHooks") is True:
            receipt.dropped.append(Item(name, "disableAllHooks is set"))
        elif key == "hooks":
            kept[key] = _hooks(value, place, receipt)
        elif SECRET.search(json.dumps(value).encode()):
            receipt.dropped.append(Item(name, "it holds what looks like a key"))
        elif key == "permissions":
            kept[key] = _rules(value, place)
            receipt.carried.append(Item(name, "rules only" if kept[key] == value else "rules only, paths rewritten"))
        else:
            kept[key] = value
            receipt.carried.append(Item(name, "as it is"))
    return kept


def _rules(given: Any, place: Place) -> dict[str, list[str]]:
    """Permission rules, their paths relative to the workspace or the home as the client reads such rules."""
    kept = {kind: rules for kind in RULES if isinstance(rules := _table(given).get(kind), list)}
    text = re.sub(rf"/?{re.escape(str(place.project))}(?=[/\")])", ".", json.dumps(kept))
    text = re.sub(rf"/?{re.escape(str(place.config))}(?=[/\")])", "~/.claude", text)
    return json.loads(re.sub(rf"/?{re.escape(str(place.home))}(?=[/\")])", "~", text))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _why(key: str) -> str:
    if key == "env":
        return "environment block"
    if key.endswith(("Helper", "Refresh", "Export")):
        return "credential helper"
    if key in ("enabledPlugins", "extraKnownMarketplaces"):
        return "plugins are carried as directories"
    return "not known to be safe and useful elsewhere"


def _elsewhere(text: str, place: Place) -> str:
    """`text` with this machine's directories as a session has them."""
    there = ((place.config, "$HOME/.claude"), (place.project, "$CLAUDE_PROJECT_DIR"), (place.home, "$HOME"))
    for path, name in there:
        text = re.sub(re.escape(str(path)) + r"(?=[/\"'\s]|$)", name, text)
    return re.sub(r"\$(CLAUDE_CONFIG_DIR\b|\{CLAUDE_CONFIG_DIR\})", "$HOME/.claude", text)


def _hooks(given: Any, place: Place, receipt: Receipt) -> Any:
    """Command hooks whose scripts travel too; a hook without its script would let every call pass unseen."""
    if not isinstance(given, dict):
        return given
    kept: dict[str, list[Any]] = {}
    for event, groups in given.items():
        for number, group in enumerate(groups if isinstance(groups, list) else ()):
            name = f"{place.config_name}/settings.json hooks/{event}/{number}"
            handlers = group.get("hooks") if isinstance(group, dict) else None
            fit = [hook for hook in handlers or () if isinstance(hook, dict) and not _unfit(hook, place)]
            if isinstance(handlers, list) and len(fit) < len(handlers) or handlers is None:
                why = next((w for hook in handlers or () if (w := _unfit(hook, place))), "malformed")
                receipt.dropped.append(Item(name, why))
            if fit:
                whole = json.dumps({**group, "hooks": fit})
                rewritten = _elsewhere(whole, place)
                kept.setdefault(event, []).append(json.loads(rewritten))
                items = receipt.carried if rewritten == whole else receipt.rewritten
                items.append(Item(name, "as it is" if rewritten == whole else "paths of this machine replaced"))
    return kept


def _unfit(hook: Any, place: Place) -> str:
    """Why a hook stays here; empty when it travels."""
    if not isinstance(hook, dict) or hook.get("type") != "command" or not isinstance(hook.get("command"), str):
        return "malformed, or not a command"
    text = json.dumps(hook)
    if SECRET.search(text.encode()):
        return "it holds what looks like a key"
    elsewhere = re.sub(r"(~|\$HOME|\$\{HOME\})(?=/)", "$HOME", _elsewhere(text, place))
    if re.search(r"\$HOME/(?!\.claude/(hooks|skills|commands)/)", elsewhere):
        return f"its script lies outside {place.config_name}/hooks"
    return ""


def _plugins(place: Place, target: Path, receipt: Receipt) -> None:
    silent = _table(parsed(place.config / "settings.json")).get("disableAllHooks") is True
    for name, root in _enabled(place):
        if "parhelia" in name.lower():
            receipt.dropped.append(Item(f"plugin {name}", OURS))
            continue
        folder = target / "plugins" / re.sub(r"[^\w.-]", "-", name)
        _tree(root, folder, f"plugin {name}", receipt)
        if not folder.is_dir():
            continue
        _without_servers(folder, name, receipt)
        if silent and (folder / "hooks").is_dir():
            shutil.rmtree(folder / "hooks")
            receipt.dropped.append(Item(f"plugin {name}/hooks", "disableAllHooks is set"))
        receipt.plugins.append(folder.name)


def _without_servers(plugin: Path, name: str, receipt: Receipt) -> None:
    """Take a plugin's MCP servers out of its copy: nothing would start them, and their environment may hold a secret."""
    if (plugin / ".mcp.json").exists():
        (plugin / ".mcp.json").unlink()
        receipt.dropped.append(Item(f"plugin {name}/.mcp.json", STRICT))
    manifest = plugin / ".claude-plugin" / "plugin.json"
    told = _table(parsed(manifest))
    if told.pop("mcpServers", None) is not None:
        files.replace_json(manifest, told)
        receipt.rewritten.append(Item(f"plugin {name}/.claude-plugin/plugin.json", STRICT))


def _enabled(place: Place) -> Iterator[tuple[str, Path]]:
    plugins = _table(_table(parsed(place.config / "plugins" / "installed_plugins.json")).get("plugins"))
    enabled: dict[str, Any] = {}
    for source in sources(place):
        if source.kind == "user":
            enabled |= _table(_table(parsed(source.path)).get("enabledPlugins"))
    for name, entries in plugins.items():
        first = _table(entries[0]) if isinstance(entries, list) and entries else {}
        path = first.get("installPath")
        if enabled.get(name) is True and isinstance(path, str) and Path(path).is_dir():
            yield name, Path(path)


def _servers(place: Place, receipt: Receipt) -> dict[str, Any]:
    """The user's and the project's MCP servers that work without anything secret and without this machine's files."""
    account = place.account_name
    known = _table(parsed(place.account))
    here = _table(_table(known.get("projects")).get(str(place.project)))
    shared = _table(parsed(place.project / ".mcp.json"))
    off = _listed(here, "disabledMcpServers")
    refused = off.union(*(_listed(told, "disabledMcpjsonServers") for told in (here, *_own_settings(place))))
    kept: dict[str, Any] = {}
    for where, holder in ((account, known), (f"{account} for this project", here), (".mcp.json", shared)):
        for name, server in _table(holder.get("mcpServers")).items():
            label = f"MCP server {name} in {where}"
            if "parhelia" in f"{name} {json.dumps(server)}".lower():
                receipt.dropped.append(Item(label, OURS))
            elif name in (refused if holder is shared else off):
                receipt.dropped.append(Item(label, "it is switched off here"))
            elif why := _needs_secret(server, place.home):
                receipt.dropped.append(Item(label, why))
            else:
                kept[name] = server
                receipt.carried.append(Item(label, "as it is"))
    return kept


def _own_settings(place: Place) -> list[dict[str, Any]]:
    return [_table(parsed(source.path)) for source in sources(place) if source.kind != "plugin"]


def _listed(told: dict[str, Any], key: str) -> set[str]:
    held = told.get(key)
    return {name for name in held if isinstance(name, str)} if isinstance(held, list) else set()


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
    if re.search("[@?]", str(server.get("url") or "")):
        return "its address may hold a secret"
    return "its program lies in your home" if str(home) in text or '"~/' in text else ""
