"""The live view as a picture of one moment. Its library is imported with this module, so this module is imported late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from parhelia_mcp.render.look import log_line, standing
from parhelia_mcp.render.text import age, colour, cut, money, table

if TYPE_CHECKING:
    from parhelia_mcp import verbs

KEYS = "↑↓ choose   a attach   k kill   l log   q quit"


def screen() -> Live:
    """The whole terminal, given back as it was on leaving."""
    return Live(console=Console(), screen=True, auto_refresh=False, transient=True)


def rows_of_log(height: int, tasks: int) -> int:
    """How many lines of log fit under so many tasks."""
    return max(3, height - tasks - 6)


def frame(view: verbs.watch.Result, notice: str, room: int, height: int) -> RenderableType:
    """Tasks above, the chosen one's log below, what the keys do at the bottom; never higher than the terminal."""
    head = f"{view.live} live, {money(view.usd_per_hour)} an hour; {money(view.spent_usd)} spent, {money(view.remaining_usd)} left"
    most = max(1, height - 9)
    first = max(0, view.chosen - most + 1)
    rows = [_row(at == view.chosen, task) for at, task in enumerate(view.tasks)][first : first + most]
    heads = ("", "TASK", "STATE", "AGE", "SPENT", "WHAT")
    drawn = table(heads, rows, paint=2, spare=(4, 3), right=(3, 4), room=room) or "no tasks yet"
    lines = view.lines[-rows_of_log(height, len(rows)) :]
    title = view.tasks[view.chosen].task_id if view.tasks else ""
    return Group(
        Text(cut(f"Parhelia  {head}", room), style="bold"),
        Text.from_ansi(drawn),
        Rule(f"log of {title}" if title else "log", style="dim"),
        *(Text(cut(log_line(line), room)) for line in lines),
        Text.from_ansi(colour(cut(notice, room), 33) if notice else colour(cut(KEYS, room), 2)),
    )


def _row(chosen: bool, task: verbs.list.Row) -> tuple[str, ...]:
    state = standing(task.state, task.reason, task.kill_requested_at)
    doing = f"{task.title}  ·  {task.last_activity}" if task.last_activity else task.title
    return (">" if chosen else " ", task.task_id, state, age(task.created_at), money(task.spent_usd), doing)
