"""Commands about money: budget."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, show
from parhelia_mcp.context import Context


@click.group()
def budget() -> None:
    """What may be spent, what is, what is held for sessions that run."""


@budget.command("show")
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
