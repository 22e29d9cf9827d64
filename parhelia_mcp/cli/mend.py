"""Commands for when something is wrong: recover, doctor, report, reconcile, cleanup."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, made, show
from parhelia_mcp.context import Context


@click.command(
    epilog="Examples:  parhelia recover task-1a2b   |   parhelia recover task-1a2b --yes   |   parhelia recover task-1a2b --action restart"
)
@click.argument("id")
@click.option("--action", type=click.Choice(["diagnose", "resume", "restart", "kill"]), help="Do this, unasked.")
@click.option("--yes", is_flag=True, help="Do what the diagnosis calls for, unasked.")
@as_json
def recover(id: str, action: str | None, yes: bool, as_json: bool) -> None:
    """What is wrong with a task, and how it comes back. Without --yes or --action nothing is changed unasked."""
    from parhelia_mcp.verbs import recover as verb

    ctx = Context()
    request = made(verb.Request, id=id, action=action)
    result = verb.run(ctx, request, agreed=yes)
    if ctx.on_terminal and not (action or yes or as_json) and result.choices:
        render.aside(render.recovery(result) + "\n" + render.choices(result))
        number = click.prompt("which", type=click.IntRange(0, len(result.choices)), default=0, err=True)
        if number:
            result = verb.run(ctx, made(verb.Request, id=id, action=result.choices[number - 1]))
    show(result, render.recovery(result), as_json)
    leave(0 if action == "diagnose" else verb.exit_code(result))
