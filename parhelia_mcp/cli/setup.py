"""Commands about the installation: config, mcp."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, show
from parhelia_mcp.context import Context


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def config(click_ctx: click.Context, as_json: bool) -> None:
    """The settings in force and where each came from."""
    if click_ctx.invoked_subcommand is None:
        _show(as_json)


@config.command("show")
@as_json
def config_show(as_json: bool) -> None:
    """Every key, its value, its source."""
    _show(as_json)


def _show(as_json: bool) -> None:
    from parhelia_mcp.verbs import config as verb

    result = verb.run(Context(), verb.Request())
    show(result, render.config(result), as_json)
    leave(0 if result.ok else 2)


@click.command()
def mcp() -> None:
    """Serve the MCP tools on standard input and output."""
    from parhelia_mcp.__main__ import main

    main()
