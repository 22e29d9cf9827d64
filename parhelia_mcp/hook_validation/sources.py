"""Which files configure hooks for a project, in the order in which Claude Code reads them."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parhelia_mcp.hook_validation.model import Finding, Source

MANAGED = (
    Path("/etc/claude-code/managed-settings.json"),
    Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: a home, a project, and the environment that hooks will get."""

    home: Path
    project: Path
    environ: Mapping[str, str]
    plugins: tuple[Path, ...] = ()  # plugins that are given by option, beside the enabled ones

    @property
    def config(self) -> Path:
        """`~/.claude`, or where CLAUDE_CONFIG_DIR says, taken as it is: from the project on, and `~` is no home in it."""
        moved = self.environ.get("CLAUDE_CONFIG_DIR")
        return self.home / ".claude" if moved is None else self.project / moved

    @property
    def account(self) -> Path:
        """The client's own file, `.claude.json`, which holds MCP servers beside what it knows of the person."""
        moved = self.environ.get("CLAUDE_CONFIG_DIR")
        before = self.config / ".config.json"
        return before if before.exists() else (self.project / moved if moved else self.home) / ".claude.json"

    @property
    def config_name(self) -> str:
        """`config` as people write it."""
        return "~/.claude" if self.config == self.home / ".claude" else str(self.config)

    @property
    def account_name(self) -> str:
        """`account` as people write it."""
        return "~/.claude.json" if self.account == self.home / ".claude.json" else str(self.account)


def sources(place: Place) -> list[Source]:
    """Every file that exists, settings first, then the hooks of enabled plugins."""
    settings = [Source("managed", path) for path in MANAGED]
    settings.append(Source("user", place.config / "settings.json"))
    folder = place.project / ".claude"
    if folder != place.config:
        settings += [Source("project", folder / "settings.json"), Source("local", folder / "settings.local.json")]
    found = [source for source in settings if source.path.exists() or source.path.is_symlink()]
    loaded = (Source("plugin", root / "hooks" / "hooks.json", root) for root in _plugins(place, found))
    return [*found, *(source for source in loaded if source.path.exists())]


def pages(place: Place) -> Iterator[Source]:
    """Every skill, command and agent that may have hooks in its front matter; those of a plugin's agents do not run.

    The client calls a skill's own directory CLAUDE_PLUGIN_ROOT, and for a skill of a plugin the plugin's.
    """
    for root in dict.fromkeys((place.config, place.project / ".claude")):
        for page in sorted(root.glob("skills/*/SKILL.md")):
            yield Source("page", page, page.parent)
        for page in sorted([*root.glob("commands/**/*.md"), *root.glob("agents/**/*.md")]):
            yield Source("page", page)
    for root in dict.fromkeys(_plugins(place, sources(place))):
        for page in sorted([*root.glob("skills/*/SKILL.md"), *root.glob("commands/**/*.md")]):
            yield Source("page", page, root)


def _plugins(place: Place, settings: list[Source]) -> Iterator[Path]:
    """The roots of the enabled plugins, and of those that are given by option."""
    enabled: dict[str, bool] = {}
    for source in settings:
        data = parsed(source.path)
        wanted = data.get("enabledPlugins") if isinstance(data, dict) else None
        enabled.update(wanted if isinstance(wanted, dict) else {})
    installed = parsed(place.config / "plugins" / "installed_plugins.json")
    known = parsed(place.config / "plugins" / "known_marketplaces.json")
    for name, on in enabled.items():
        if on and (root := _plugin_root(name, installed, known)):
            yield root
    yield from place.plugins


def _plugin_root(name: str, installed: Any, known: Any) -> Path | None:
    """Where an installed plugin runs from: a directory marketplace's live source, else the copy in the cache."""
    try:
        marketplace = known[name.rpartition("@")[2]]
        entry = installed["plugins"][name][0]
        if marketplace["source"]["source"] == "directory":
            listed = parsed(Path(marketplace["installLocation"]) / ".claude-plugin" / "marketplace.json")
            plugin = next(plugin for plugin in listed["plugins"] if plugin["name"] == name.partition("@")[0])
            return Path(marketplace["installLocation"], plugin["source"])
        return Path(entry["installPath"])
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration):
        return None


def text(path: Path) -> str:
    """The file as Claude Code decodes it: UTF-8 or UTF-16 by its mark, bad bytes replaced. Raises OSError."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file")  # a pipe would be waited for
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def parsed(path: Path) -> Any:
    """The JSON in `path`, or None where there is none."""
    try:
        return json.loads(text(path))
    except (OSError, ValueError, RecursionError):
        return None


def load(source: Source) -> tuple[Any, Finding | None]:
    """The JSON behind a source, or the finding that says why Claude Code cannot use the file."""

    def lost(code: str, what: str, fix: str) -> tuple[None, Finding]:
        return None, Finding(code, "error", str(source.path), "", what, fix)

    try:
        content = text(source.path)
    except IsADirectoryError:
        return lost("HK102", "This is a directory, so its settings do not exist.", f"rmdir {source.path}")
    except OSError as problem:
        return lost("HK102", f"It cannot be read: {problem.strerror}.", f"chmod 600 {source.path}")
    try:
        return json.loads(content), None
    except RecursionError:
        return lost("HK101", "It is nested too deeply.", "make it flat")
    except ValueError as problem:
        place = f"line {problem.lineno} column {problem.colno}" if isinstance(problem, json.JSONDecodeError) else ""
        return lost(
            "HK101",
            f"It is not JSON ({problem}). Claude Code ignores the whole file, permission rules too, and does not say so.",
            f"{_guess(content)} Look at {place}: python3 -m json.tool {source.path}",
        )


def _guess(content: str) -> str:
    if any(line.lstrip().startswith(("//", "/*", "#")) for line in content.splitlines()):
        return "Remove the comments: JSON has none."
    flat = "".join(content.split())
    if ",}" in flat or ",]" in flat:
        return "Remove the comma before a closing bracket."
    return "Put the syntax right."
