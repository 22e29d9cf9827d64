"""Results as text for people, and the only place that prints. Everything remote is cleaned before it gets here.

What draws a result is loaded with its first use: a command pays for its own page alone.
"""

import importlib
from typing import Any

from parhelia_mcp.render.text import (
    FIRST_STEPS,
    age,
    as_json,
    aside,
    colour,
    money,
    out,
    page,
    pairs,
    problem,
    state,
    table,
    width,
)

PAGES = {
    "parhelia_mcp.render.keep": (
        "checkpoint",
        "checkpoints",
        "difference",
        "removed",
        "resumed",
        "verified",
    ),
    "parhelia_mcp.render.look": (
        "log_line",
        "status",
        "task",
        "tasks",
    ),
    "parhelia_mcp.render.mend": (
        "choices",
        "cleaned",
        "diagnosis",
        "doctor",
        "reconciled",
        "recovery",
        "report",
    ),
    "parhelia_mcp.render.settings": (
        "budget",
        "ceiling",
        "config",
        "config_diff",
        "estimate",
        "history",
        "hooks",
        "init",
    ),
    "parhelia_mcp.render.waiting": (
        "bell",
        "progress",
    ),
    "parhelia_mcp.render.work": (
        "killed",
        "left",
        "pulled",
        "ran",
        "submitted",
    ),
}

__all__ = [
    "FIRST_STEPS",
    "age",
    "as_json",
    "aside",
    "colour",
    "money",
    "out",
    "page",
    "pairs",
    "problem",
    "state",
    "table",
    "width",
]


def __getattr__(name: str) -> Any:
    """The function of a page, which is imported now."""
    for page_, names in PAGES.items():
        if name in names:
            return getattr(importlib.import_module(page_), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
