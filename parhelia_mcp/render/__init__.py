"""Results as text for people, and the only place that prints. Everything remote is cleaned before it gets here."""

from parhelia_mcp.render.keep import checkpoint, checkpoints, difference, removed, resumed, verified
from parhelia_mcp.render.look import log_line, status, task, tasks
from parhelia_mcp.render.mend import choices, diagnosis, recovery
from parhelia_mcp.render.settings import budget, ceiling, config, config_diff, estimate, history, hooks, init
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
    size,
    state,
    table,
    width,
)
from parhelia_mcp.render.waiting import bell, progress
from parhelia_mcp.render.work import killed, left, pulled, ran, submitted

__all__ = [
    "FIRST_STEPS",
    "age",
    "as_json",
    "aside",
    "budget",
    "ceiling",
    "checkpoint",
    "checkpoints",
    "choices",
    "colour",
    "config",
    "config_diff",
    "diagnosis",
    "difference",
    "estimate",
    "history",
    "hooks",
    "init",
    "killed",
    "left",
    "log_line",
    "money",
    "out",
    "page",
    "pairs",
    "bell",
    "progress",
    "problem",
    "pulled",
    "ran",
    "recovery",
    "removed",
    "resumed",
    "size",
    "state",
    "status",
    "submitted",
    "table",
    "task",
    "tasks",
    "verified",
    "width",
]
