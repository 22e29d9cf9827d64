"""Commands about the hooks of Claude Code."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, show
from parhelia_mcp.context import Context


@click.group()
def hooks() -> None:
    """Whether Claude Code's hooks will act as written; ours in plain settings."""


@hooks.command(epilog="Examples:  parhelia hooks validate   |   parhelia hooks validate --run --fix")
@click.option("--run", is_flag=True, help="Also run each hook once with a harmless sample call.")
@click.option("--fix", is_flag=True, help="Rewrite bare paths as hooks; the file as it was is kept beside it.")
@as_json
def validate(run: bool, fix: bool, as_json: bool) -> None:
    """Check every settings file, plugin, skill and agent; each finding with its exact fix."""
    _done(as_json, action="validate", run=run, fix=fix)


@hooks.command(epilog="Example:  parhelia hooks install")
@as_json
def install(as_json: bool) -> None:
    """Write our hooks into ~/.claude/settings.json (or CLAUDE_CONFIG_DIR), for people who do not use the plugin."""
    _done(as_json, action="install")


def _done(as_json: bool, **asked: object) -> None:
    from parhelia_mcp.verbs import hooks as verb

    result = verb.run(Context(), verb.Request(**asked))
    show(result, render.hooks(result), as_json)
    leave(0 if result.ok else 2)
