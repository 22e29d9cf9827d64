"""What the shell offers after TAB: living things first. It answers from the database alone and never fails."""

from __future__ import annotations

from click import Context as Typed
from click import Parameter
from click.shell_completion import CompletionItem

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem

MOST = 50


def tasks(typed: Typed, parameter: Parameter, start: str) -> list[CompletionItem]:
    """Ids of tasks, newest first, with their state and what they are."""
    from parhelia_mcp.plain import line

    try:
        ctx = Context()
        rows = ctx.store.page(limit=MOST)
        named = [(row.task, str(row.state), ctx.store.task(row.task)) for row in rows]
    except Problem:
        return []
    return [
        CompletionItem(id, help=line(f"{state}  {task.prompt or ' '.join(task.command or ())}", 60))
        for id, state, task in named
        if id.startswith(start) or id.removeprefix("task-").startswith(start)
    ]


def checkpoints(typed: Typed, parameter: Parameter, start: str) -> list[CompletionItem]:
    """Ids of checkpoints, newest first."""
    try:
        found = list(Context().home.glob("tasks/*/checkpoints/manifests/*.json"))
    except Problem:
        return []
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST]
    items = [CompletionItem(f"cp-{path.stem[:8]}", help=path.parents[2].name) for path in newest]
    return [item for item in items if item.value.startswith(start)]


def states(typed: Typed, parameter: Parameter, start: str) -> list[str]:
    from parhelia_mcp.model import State

    return [name for name in (*State, "active") if name.startswith(start)]


def gpus(typed: Typed, parameter: Parameter, start: str) -> list[str]:
    from parhelia_mcp.prices import GPU

    return [name for name in GPU if name.startswith(start.upper())]


def topics(typed: Typed, parameter: Parameter, start: str) -> list[str]:
    from parhelia_mcp.cli.teach import TOPICS

    return [name for name in TOPICS if name.startswith(start)]
