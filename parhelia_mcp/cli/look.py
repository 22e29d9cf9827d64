"""Commands that look: status, list, task, session, logs."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, made, offered, options, show, task_id
from parhelia_mcp.cli.mend import recover
from parhelia_mcp.context import Context


@click.command(
    epilog="Examples:  parhelia status   |   parhelia status task-1a2b   |   parhelia status --json > status.json"
)
@task_id(required=False)
@as_json
def status(id: str | None, as_json: bool) -> None:
    """Health of everything, or of one task."""
    if id is not None:
        _show(id, as_json)
        return
    from parhelia_mcp.verbs import status as verb

    result = verb.run(Context(), verb.Request())
    show(result, render.status(result), as_json)
    leave(verb.exit_code(result))


listing = options(
    click.option(
        "--status",
        "state",
        metavar="S",
        shell_complete=offered("states"),
        help="Only this state, e.g. running; several with commas.",
    ),
    click.option("--limit", type=int, metavar="N", help="Rows, 20 by default."),
    click.option("--cursor", metavar="C", help="Go on after the page before."),
    as_json,
)


@click.command(
    "list", epilog="Examples:  parhelia list   |   parhelia list --status running   |   parhelia list --limit 5 --json"
)
@listing
def list_(as_json: bool, **wanted: object) -> None:
    """Your tasks, newest first."""
    _list(as_json, **wanted)


def _list(as_json: bool, **wanted: object) -> None:
    from parhelia_mcp.verbs import list as verb

    result = verb.run(Context(), made(verb.Request, **wanted))
    show(result, render.tasks(result), as_json)


def _show(id: str, as_json: bool) -> None:
    from parhelia_mcp.verbs import show as verb

    result = verb.run(Context(), verb.Request(id=id))
    show(result, render.task(result), as_json)


@click.group()
def task() -> None:
    """Tasks: list them, show one."""


@click.group()
def session() -> None:
    """Sessions: list them, show one, end one."""


for group in (task, session):

    @group.command("list", epilog=f"Example:  parhelia {group.name} list --status running")
    @listing
    def _(as_json: bool, **wanted: object) -> None:
        """Newest first."""
        _list(as_json, **wanted)

    @group.command("show", epilog=f"Example:  parhelia {group.name} show task-1a2b")
    @task_id()
    @as_json
    def _(id: str, as_json: bool) -> None:
        """Everything about one."""
        _show(id, as_json)


@session.command("kill", epilog="Example:  parhelia session kill task-1a2b")
@task_id()
@as_json
def kill(id: str, as_json: bool) -> None:
    """End a session: its work is kept, its cost stops, nothing starts it again."""
    from parhelia_mcp.store import whole_id
    from parhelia_mcp.verbs import kill as verb

    ctx = Context()
    if not ctx.on_terminal:
        whole_id(id)
    result = verb.run(ctx, verb.Request(id=id))
    show(result, render.killed(result), as_json)


@click.command(
    epilog='Examples:  parhelia logs task-1a2b --tail 100   |   parhelia logs task-1a2b --follow   |   parhelia logs task-1a2b --grep "error|killed|oom"'
)
@task_id()
@click.option("--tail", type=int, metavar="N", help="Only the last N lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on with every new line until it ends.")
@click.option("--grep", metavar="RE", help="Only lines that match.")
@click.option("--stream", type=click.Choice(["all", "events", "output", "system"]), help="Which lines.")
@click.option("--cursor", metavar="C", help="Go on after an earlier reading.")
@as_json
def logs(follow: bool, as_json: bool, **wanted: object) -> None:
    """What happened in a session and what its agent printed, in order."""
    from parhelia_mcp.verbs import logs as verb

    ctx = Context()
    request = made(verb.Request, **wanted)
    if follow:
        for line in verb.follow_lines(ctx, request):
            render.out(render.as_json(line) if as_json else render.log_line(line))
        return
    result = verb.run(ctx, request)
    show(result, "\n".join(map(render.log_line, result.lines)), as_json)


session.add_command(recover)
