"""Commands for when something is wrong: recover, doctor, report, reconcile, cleanup."""

from __future__ import annotations

from typing import Any

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, made, offered, show, task_id
from parhelia_mcp.context import Context


@click.command(
    epilog="Examples:  parhelia recover task-1a2b   |   parhelia recover task-1a2b --yes   |   parhelia recover task-1a2b --yes --memory 64"
)
@task_id()
@click.option("--action", type=click.Choice(["diagnose", "resume", "restart", "kill"]), help="Do this, unasked.")
@click.option("--yes", is_flag=True, help="Do what the diagnosis calls for, unasked.")
@click.option("--memory", type=float, metavar="GIB", help="Memory limit of the next session, in GiB.")
@click.option("--gpu", metavar="TYPE", help="Its GPU, or none.", shell_complete=offered("gpus"))
@click.option("--region", metavar="R", help="Its region on modal, or any.")
@as_json
def recover(id: str, action: str | None, yes: bool, as_json: bool, **sizes: Any) -> None:
    """What is wrong with a task, and how it comes back. Without --yes or --action nothing is changed unasked.

    The plan names the sizes it changes by itself: more memory after a session ran out of it, another GPU or region
    where there was none. --memory, --gpu and --region decide otherwise.
    """
    from parhelia_mcp.verbs import recover as verb

    ctx = Context()
    request = made(verb.Request, id=id, action=action, **sizes)
    result = verb.run(ctx, request, agreed=yes, by_person=not ctx.in_agent)
    if ctx.on_terminal and not (action or yes or as_json) and result.choices:
        render.aside(render.recovery(result) + "\n" + render.choices(result.choices))
        number = click.prompt("which", type=click.IntRange(0, len(result.choices)), default=0, err=True)
        if number:
            request = made(verb.Request, id=id, action=result.choices[number - 1], **sizes)
            result = verb.run(ctx, request, by_person=True)
    show(result, render.recovery(result), as_json)
    leave(0 if action == "diagnose" else verb.exit_code(result))


@click.command(epilog="Example:  parhelia doctor --json")
@as_json
def doctor(as_json: bool) -> None:
    """Check the whole installation; each line with its fix. Works with a broken configuration."""
    from parhelia_mcp.verbs import doctor as verb

    result = verb.run(Context(), verb.Request())
    show(result, render.doctor(result), as_json)
    leave(verb.exit_code(result))


@click.command(epilog="Example:  parhelia report task-1a2b")
@task_id()
@as_json
def report(id: str, as_json: bool) -> None:
    """Write one file for a bug report: status, diagnosis, logs, settings, versions; keys and tokens taken out."""
    from parhelia_mcp.verbs import report as verb

    result = verb.run(Context(), verb.Request(id=id))
    show(result, render.report(result), as_json)


@click.command(epilog="Examples:  parhelia reconcile   |   parhelia reconcile --rebuild")
@click.option("--rebuild", is_flag=True, help="Put a damaged database aside and make a new one from what is left.")
@as_json
def reconcile(rebuild: bool, as_json: bool) -> None:
    """Make the database agree with the providers and the disk. Ends nothing."""
    from parhelia_mcp.verbs import reconcile as verb

    result = verb.run(Context(), verb.Request(rebuild=rebuild))
    show(result, render.reconciled(result), as_json)
    leave(verb.exit_code(result))


@click.command(epilog="Examples:  parhelia cleanup   |   parhelia cleanup --terminate")
@click.option("--terminate", is_flag=True, help="End sandboxes of yours that no session needs, after ten minutes.")
@as_json
def cleanup(terminate: bool, as_json: bool) -> None:
    """What runs or lies around without a session that needs it."""
    from parhelia_mcp.verbs import cleanup as verb

    result = verb.run(Context(), verb.Request(terminate=terminate))
    show(result, render.cleaned(result), as_json)
    leave(verb.exit_code(result))
