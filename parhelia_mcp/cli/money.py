"""Commands about money: budget, export."""

from __future__ import annotations

from pathlib import Path

import click

from parhelia_mcp import files, render
from parhelia_mcp.cli.common import as_json, made, max_usd, offered, show, task_id
from parhelia_mcp.context import Context
from parhelia_mcp.errors import LocalFault


@click.group()
def budget() -> None:
    """What may be spent, what is, what is held for sessions that run."""


@budget.command("show", epilog="Example:  parhelia budget show --json")
@as_json
def show_(as_json: bool) -> None:
    """Ceiling, spent, reserved, what is left, and by task."""
    from parhelia_mcp.verbs import budget as verb

    result = verb.run(Context(), verb.Request())
    show(result, render.budget(result), as_json)


@budget.command("set", context_settings={"ignore_unknown_options": True}, epilog="Example:  parhelia budget set 50")
@click.argument("amount")
@as_json
def set_(amount: str, as_json: bool) -> None:
    """Set the ceiling over everything, in dollars."""
    from parhelia_mcp.verbs import budget as verb

    ctx = Context()
    result = verb.set_ceiling(ctx, verb.SetRequest(amount=amount), may_raise=not ctx.in_agent)
    show(result, render.ceiling(result), as_json)


@budget.command(
    epilog="Examples:  parhelia budget estimate --gpu H100 --timeout-hours 2   |   parhelia budget estimate --provider modal --cpu 8 --memory 32"
)
@click.option("--gpu", metavar="TYPE", shell_complete=offered("gpus"), help="GPU, e.g. A10G, L4, H100.")
@click.option("--memory", type=float, metavar="GIB", help="Memory in GiB.")
@click.option("--cpu", type=float, metavar="CORES", help="Cores.")
@click.option("--timeout-hours", type=float, metavar="H", help="How long.")
@max_usd()
@click.option("--provider", metavar="NAME", help="Only local or only modal.")
@click.option("--region", metavar="R", help="Region on modal, e.g. us-west.")
@click.option("--model", metavar="M", help="Model of the agent.")
@as_json
def estimate(as_json: bool, **wanted: object) -> None:
    """What sizes cost at most, and where the prices are from. Reserves nothing."""
    from parhelia_mcp.verbs import estimate as verb

    result = verb.run(Context(), made(verb.Request, **wanted))
    show(result, render.estimate(result), as_json)


@budget.command(epilog="Examples:  parhelia budget history   |   parhelia budget history --days 7 --json")
@click.option("--days", type=int, metavar="N", help="How far back, 30 by default.")
@as_json
def history(as_json: bool, **wanted: object) -> None:
    """Where the money went: by day, by task, by kind."""
    from parhelia_mcp.verbs import budget as verb

    result = verb.history(Context(), made(verb.HistoryRequest, **wanted))
    show(result, render.history(result), as_json)


@click.command(
    epilog="Examples:  parhelia export   |   parhelia export task-1a2b --json   |   parhelia export --output usage.csv"
)
@task_id(required=False)
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", help="csv unless said.")
@click.option("--output", metavar="F", type=click.Path(path_type=Path, dir_okay=False), help="Into a file.")
@as_json
def export(id: str | None, form: str, output: Path | None, as_json: bool) -> None:
    """What each session used and cost, one row each: of one task, or of all."""
    from parhelia_mcp.verbs import export as verb

    result = verb.run(Context(), made(verb.Request, id=id))
    text = render.as_json(result) + "\n" if as_json or form == "json" else verb.as_csv(result)
    if output is None:
        render.out(text)
        return
    try:
        files.replace(output, text.encode(), mode=0o644)
    except OSError as problem:
        raise LocalFault(
            "unwritable", f"{output} cannot be written ({problem.strerror}).", "another --output"
        ) from None
    render.aside(f"{len(result.sessions)} sessions in {output}")
