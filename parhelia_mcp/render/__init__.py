"""Results as text for people, and the only place that prints. Everything remote is cleaned before it gets here."""

from parhelia_mcp.render.keep import checkpoint, checkpoints, difference, removed, resumed, verified
from parhelia_mcp.render.look import log_line, status, task, tasks
from parhelia_mcp.render.settings import budget, ceiling, config, estimate, history, init
from parhelia_mcp.render.text import (
    FIRST_STEPS,
    age,
    as_json,
    aside,
    colour,
    money,
    out,
    pairs,
    problem,
    size,
    state,
    table,
    width,
)
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
    "colour",
    "config",
    "difference",
    "estimate",
    "history",
    "init",
    "killed",
    "left",
    "log_line",
    "money",
    "out",
    "pairs",
    "problem",
    "pulled",
    "ran",
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
