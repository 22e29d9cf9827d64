"""Rewrite bare paths as hooks, the one fault whose meaning is certain; the file as it was is kept beside it."""

from __future__ import annotations

import copy
import json
import stat
from pathlib import Path
from typing import Any

from parhelia_mcp import files
from parhelia_mcp.hook_validation.model import EVENTS, Source
from parhelia_mcp.hook_validation.shape import as_command
from parhelia_mcp.hook_validation.sources import parsed
from parhelia_mcp.model import now


def fix(source: Source) -> Path | None:
    """Rewrite one file where it has bare paths and return the backup, or None where there is nothing to do."""
    data = parsed(source.path)
    mended = _mended(data)
    if mended is None:
        return None
    path = source.path.resolve()
    mode = stat.S_IMODE(path.stat().st_mode)
    backup = path.with_name(f"{path.name}.before-fix-{now():%Y%m%dT%H%M%S%f}")
    files.replace(backup, path.read_bytes(), durable=True, mode=mode)
    files.replace(path, json.dumps(mended, indent=2, ensure_ascii=False).encode() + b"\n", durable=True, mode=mode)
    return backup


def _mended(data: Any) -> Any | None:
    """A copy of the settings with every bare path made a hook, or None where there is none."""
    events = data.get("hooks") if isinstance(data, dict) else None
    if not isinstance(events, dict):
        return None
    mended = copy.deepcopy(data)
    changed = False
    for event, groups in mended["hooks"].items():
        if event not in EVENTS or not isinstance(groups, list):
            continue
        for number, group in enumerate(groups):
            if isinstance(group, str):
                groups[number] = group = {"hooks": [group]}
            if not isinstance(group, dict) or not isinstance(group.get("hooks"), list):
                continue
            whole = [as_command(hook) if isinstance(hook, str) else hook for hook in group["hooks"]]
            changed = changed or whole != group["hooks"]
            group["hooks"] = whole
    return mended if changed else None
