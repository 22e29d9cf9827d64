"""Put Parhelia's hooks into plain settings, for people who do not use the plugin."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.errors import Usage
from parhelia_mcp.hook_validation.shape import check
from parhelia_mcp.hook_validation.sources import Source, load
from parhelia_mcp.model import now

_PLUGIN = 'sh "${CLAUDE_PLUGIN_ROOT}"/hooks/'


@dataclass(frozen=True, slots=True)
class Installed:
    settings: Path
    backup: Path | None  # None where there was no file before
    changed: bool


def scripts() -> Path:
    """The directory of the hook scripts: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).parent
    packed = package / "_hooks"
    return packed if packed.is_dir() else package.parent / "hooks"


def install(settings: Path) -> Installed:
    """Write our hooks into `settings` with absolute paths. May be repeated: earlier ones of ours are replaced.

    All else in the file stays as it is. Raises Usage `broken-settings` for a file that Claude Code would ignore.
    """
    before: Any = {}
    if settings.exists():
        source = Source("user", settings)
        before, fault = load(source)
        faults = [fault] if fault else [found for found in check(source, before)[1] if found.severity == "error"]
        if faults:
            what = f"{settings} was left as it is: {faults[0].what}"
            raise Usage("broken-settings", what, "parhelia hooks validate")
    after = _merged(before)
    if after == before:
        return Installed(settings, None, False)
    settings = settings.resolve()
    backup = None
    mode = 0o600
    if settings.exists():
        mode = stat.S_IMODE(settings.stat().st_mode)
        backup = settings.with_name(f"{settings.name}.before-install-{now():%Y%m%dT%H%M%S%f}")
        files.replace(backup, settings.read_bytes(), durable=True, mode=mode)
    files.private_dir(settings.parent)
    files.replace(settings, json.dumps(after, indent=2, ensure_ascii=False).encode() + b"\n", durable=True, mode=mode)
    return Installed(settings, backup, True)


def _merged(before: dict[str, Any]) -> dict[str, Any]:
    after = json.loads(json.dumps(before))
    hooks = after.setdefault("hooks", {})
    for event, groups in _ours().items():
        kept = [group for group in hooks.get(event, []) if not _is_ours(group)]
        hooks[event] = kept + groups
    return after


def _ours() -> dict[str, list[dict[str, Any]]]:
    """The plugin's hooks with absolute paths and this interpreter; not its set-up, which an installation needs no more."""
    folder = scripts()
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    start = f"PARHELIA_PYTHON={shlex.quote(python)} sh {shlex.quote(str(folder))}/"
    text = (folder / "hooks.json").read_text().replace(json.dumps(_PLUGIN)[1:-1], json.dumps(start)[1:-1])
    events = json.loads(text)["hooks"]
    return {"PreToolUse": events["PreToolUse"]}


def _is_ours(group: dict[str, Any]) -> bool:
    names = ("/run spending", "/run loss", "/run hint")
    return all(str(hook.get("command", "")).endswith(names) for hook in group["hooks"]) and bool(group["hooks"])
