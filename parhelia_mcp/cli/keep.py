"""Commands about checkpoints: checkpoint, resume."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, checkpoint_id, leave, made, max_usd, offered, show, task_id
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Usage


@click.group()
def checkpoint() -> None:
    """What was kept of sessions: files and conversation at one moment."""


@checkpoint.command(epilog='Example:  parhelia checkpoint create task-1a2b -m "before the rewrite"')
@task_id()
@click.option("-m", "note", metavar="TEXT", help="Why, for the log.")
@as_json
def create(id: str, note: str | None, as_json: bool) -> None:
    """Keep a living session as it is now. Exit 9 when something could not be kept."""
    from parhelia_mcp.verbs import checkpoint as verb

    with render.progress(hidden=as_json) as tell:
        result = verb.create(Context(tell=tell), verb.CreateRequest(id=id, note=note))
    show(result, render.checkpoint(result), as_json)
    leave(9 if result.partial else 0)


@checkpoint.command(
    "list",
    epilog="Examples:  parhelia checkpoint list --session task-1a2b   |   parhelia checkpoint list --older-than 7d",
)
@click.option("--session", metavar="ID", shell_complete=offered("tasks"), help="Only of this task or session.")
@click.option("--older-than", metavar="7d", help="Only older ones.")
@as_json
def list_(session: str | None, older_than: str | None, as_json: bool) -> None:
    """Every checkpoint, newest first."""
    from parhelia_mcp.verbs import checkpoint as verb

    result = verb.list_(Context(), verb.ListRequest(session=session, older_than=older_than))
    show(result, render.checkpoints(result), as_json)


@checkpoint.command("show", epilog="Example:  parhelia checkpoint show cp-1a2b3c4d")
@checkpoint_id("cp")
@as_json
def show_(cp: str, as_json: bool) -> None:
    """One checkpoint: what it holds, why it was taken, what is missing."""
    from parhelia_mcp.verbs import checkpoint as verb

    with render.progress(hidden=as_json) as tell:
        result = verb.show(Context(tell=tell), verb.OneRequest(id=cp))
    show(result, render.checkpoint(result), as_json)


@checkpoint.command(
    epilog="Examples:  parhelia checkpoint diff cp-1a2b3c4d cp-5e6f7a8b --stat   |   parhelia checkpoint diff cp-1a2b3c4d cp-5e6f7a8b src/app.py"
)
@checkpoint_id("a")
@checkpoint_id("b")
@click.argument("path", required=False)
@click.option("--stat", is_flag=True, help="Sizes too.")
@as_json
def diff(a: str, b: str, path: str | None, stat: bool, as_json: bool) -> None:
    """What B has that A has not; with PATH the lines."""
    from parhelia_mcp.verbs import checkpoint as verb

    with render.progress(hidden=as_json) as tell:
        result = verb.diff(Context(tell=tell), verb.DiffRequest(a=a, b=b, path=path))
    show(result, render.difference(result, stat=stat), as_json)


@checkpoint.command(epilog="Example:  parhelia checkpoint verify cp-1a2b3c4d")
@checkpoint_id("cp")
@as_json
def verify(cp: str, as_json: bool) -> None:
    """Check every byte. Exit 6 when something is wrong."""
    from parhelia_mcp.verbs import checkpoint as verb

    with render.progress(hidden=as_json) as tell:
        result = verb.verify_(Context(tell=tell), verb.OneRequest(id=cp))
    show(result, render.verified(result), as_json)
    leave(0 if result.ok else 6)


@checkpoint.command(epilog="Example:  parhelia checkpoint rollback cp-1a2b3c4d")
@checkpoint_id("cp")
@as_json
def rollback(cp: str, as_json: bool) -> None:
    """End the living session and go on from CP as the next one."""
    from parhelia_mcp.verbs import rollback as verb

    with render.progress(hidden=as_json) as tell:
        ctx = Context(tell=tell)
        result = verb.run(ctx, verb.Request(id=cp), by_person=not ctx.in_agent)
    show(result, render.resumed(result), as_json)


@checkpoint.command(
    epilog="Examples:  parhelia checkpoint delete cp-1a2b3c4d   |   parhelia checkpoint delete --older-than 7d"
)
@checkpoint_id("cps", nargs=-1)
@click.option("--older-than", metavar="7d", help="Every one older than this, but the newest of each session.")
@as_json
def delete(cps: tuple[str, ...], older_than: str | None, as_json: bool) -> None:
    """Remove checkpoints for good."""
    from parhelia_mcp.verbs import checkpoint as verb

    ctx = Context()
    short = [name for name in cps if len(name.removeprefix("cp-")) < 8]
    if short and not ctx.on_terminal:
        raise Usage(
            "prefix-refused",
            f"{short[0]!r} is not a whole id; without a terminal a prefix is not enough to delete. Nothing was removed.",
            "parhelia checkpoint list",
        )
    result = verb.delete(ctx, verb.DeleteRequest(ids=list(cps), older_than=older_than))
    show(result, render.removed(result), as_json)


@checkpoint.command(epilog="Example:  parhelia checkpoint gc")
@as_json
def gc(as_json: bool) -> None:
    """Give back the disk that no checkpoint needs."""
    from parhelia_mcp.verbs import checkpoint as verb

    result = verb.gc(Context())
    show(result, render.removed(result), as_json)


@click.command(
    epilog="Examples:  parhelia resume task-1a2b   |   parhelia resume task-1a2b --checkpoint-id cp-1a2b3c4d --memory 32   |   parhelia resume task-1a2b --target ~/back"
)
@task_id()
@click.option(
    "--checkpoint-id",
    metavar="CP",
    shell_complete=offered("checkpoints"),
    help="This one instead of the newest that verifies.",
)
@click.option("--target", metavar="DIR", help="Bring it home into DIR; starts nothing.")
@click.option("--force", is_flag=True, help="With --target: save what is there, then replace it.")
@click.option("--memory", type=float, metavar="GIB")
@click.option("--gpu", metavar="TYPE")
@click.option("--region", metavar="R")
@max_usd("Most it may spend; default: what is left of the task's limit.")
@as_json
def resume(as_json: bool, **wanted: object) -> None:
    """Go on with an ended task from its newest checkpoint, conversation and files."""
    from parhelia_mcp.verbs import resume as verb

    with render.progress(hidden=as_json) as tell:
        ctx = Context(tell=tell)
        result = verb.run(ctx, made(verb.Request, **wanted), by_person=not ctx.in_agent)
    show(result, render.resumed(result), as_json)
