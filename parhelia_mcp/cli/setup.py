"""Commands about the installation: config, init, mcp."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, show, task_id
from parhelia_mcp.context import Context


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def config(click_ctx: click.Context, as_json: bool) -> None:
    """The settings in force and where each came from."""
    if click_ctx.invoked_subcommand is None:
        _show(as_json)


@config.command("show", epilog="Example:  parhelia config show --json")
@as_json
def config_show(as_json: bool) -> None:
    """Every key, its value, its source."""
    _show(as_json)


@config.command("diff", epilog="Examples:  parhelia config diff   |   parhelia config diff task-1a2b3c4d")
@task_id(required=False)
@as_json
def config_diff(id: str | None, as_json: bool) -> None:
    """What of your Claude Code configuration travels into a session, or into this one; what stays, and why."""
    from parhelia_mcp.verbs import config_diff as verb

    result = verb.run(Context(), verb.Request(id=id))
    show(result, render.config_diff(result), as_json)


def _show(as_json: bool) -> None:
    from parhelia_mcp.verbs import config as verb

    result = verb.run(Context(), verb.Request())
    show(result, render.config(result), as_json)
    leave(0 if result.ok else 2)


@click.command(epilog="Examples:  parhelia init   |   parhelia init --print > parhelia.toml")
@click.option("--print", "only_print", is_flag=True, help="Only print the settings file.")
@as_json
def init(only_print: bool, as_json: bool) -> None:
    """Write a commented settings file, say what is missing and how to connect Claude Code. Safe to repeat."""
    from parhelia_mcp.verbs import init as verb

    result = verb.run(Context(), verb.Request(only_print=only_print))
    show(result, result.template if only_print else render.init(result), as_json)


@click.command(epilog="Example:  claude mcp add parhelia -- parhelia mcp")
def mcp() -> None:
    """Serve the MCP tools on standard input and output."""
    from parhelia_mcp.__main__ import main

    main()
