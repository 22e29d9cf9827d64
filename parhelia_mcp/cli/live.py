"""The command that stays: watch."""

from __future__ import annotations

import os
import select
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import task_id
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem, Usage

LOOK_S = 0.5  # between two looks when no key is pressed
MOVES = {b"\x1b[A": -1, b"\x1b[B": 1, b"\x1bOA": -1, b"\x1bOB": 1}


@click.command(epilog="Examples:  parhelia watch   |   parhelia watch task-1a2b")
@task_id(required=False)
def watch(id: str | None) -> None:
    """Tasks, cost and log as they change. Keys: arrows choose, a attach, k kill, l log, q quit."""
    ctx = Context()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        instead = f"parhelia logs {id} --follow" if id else "parhelia list --status active"
        raise Usage("no-terminal", "watch draws on a terminal and there is none.", instead)
    chosen, then = 0, "look"
    while then != "quit":
        then, chosen, named = _look(ctx, id, chosen)
        if then in _LEAVING:
            _LEAVING[then](ctx, named)


def _look(ctx: Context, id: str | None, chosen: int) -> tuple[str, int, str]:
    """Draw until a key asks for something else; what it asks for, and of which task."""
    from parhelia_mcp.render import live
    from parhelia_mcp.verbs import watch as verb

    asked, notice = "", ""
    with _keys() as pressed, live.screen() as screen:
        while True:
            room, height = shutil.get_terminal_size()
            view = verb.run(ctx, verb.Request(id=id, chosen=chosen, tail=live.rows_of_log(height, 1)))
            screen.update(live.frame(view, notice, room, height), refresh=True)
            chosen, named = view.chosen, view.tasks[view.chosen].task_id if view.tasks else ""
            key = pressed()
            if asked:
                notice = _kill(ctx, asked) if key == b"y" else notice if not key else ""
                asked = asked if not key else ""
            elif key in MOVES:
                chosen, notice = chosen + MOVES[key], ""
            elif key == b"q":
                return "quit", chosen, named
            elif key in (b"a", b"l") and named:
                return {b"a": "attach", b"l": "log"}[key], chosen, named
            elif key == b"k" and named:
                asked, notice = named, f"End {named}? Its last work is kept. y ends it, any other key does not."


def _kill(ctx: Context, id: str) -> str:
    from parhelia_mcp.verbs import kill as verb

    try:
        return render.killed(verb.run(ctx, verb.Request(id=id)))
    except Problem as problem:
        return str(problem)


def _attach(ctx: Context, id: str) -> None:
    from parhelia_mcp.verbs import attach as verb

    try:
        render.aside(render.left(verb.run(ctx, verb.Request(id=id), render.aside)))
    except Problem as problem:
        render.problem(problem, as_json=False)
    _pause()


def _log(ctx: Context, id: str) -> None:
    from parhelia_mcp.verbs import logs as verb

    try:
        for line in verb.follow_lines(ctx, verb.Request(id=id, tail=1000)):
            render.out(render.log_line(line))
    except KeyboardInterrupt:
        return
    _pause()


def _pause() -> None:
    """Leave what was printed to be read."""
    render.aside("any key goes back")
    with _keys() as pressed:
        while not pressed():
            pass


_LEAVING = {"attach": _attach, "log": _log}


@contextmanager
def _keys() -> Iterator[Callable[[], bytes]]:
    """A function that waits a moment for a key; keys come at once and are not shown. The terminal is set back after."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def typed(count: int, within: float) -> bytes:
        ready, _, _ = select.select([descriptor], [], [], within)
        return os.read(descriptor, count) if ready else b""

    def pressed() -> bytes:
        key = typed(1, LOOK_S)
        return key + typed(2, 0.0) if key == b"\x1b" else key  # an arrow is three bytes, typed at once

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
