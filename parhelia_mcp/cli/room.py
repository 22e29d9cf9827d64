"""Commands for being in a session: attach, ssh-config."""

from __future__ import annotations

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, show, task_id
from parhelia_mcp.context import Context


@click.command(epilog="Examples:  parhelia attach task-1a2b   |   parhelia attach task-1a2b --info-only")
@task_id()
@click.option("--verbose", is_flag=True, help="Say each step with its time.")
@click.option("--info-only", is_flag=True, help="Only print the ssh command that does it.")
def attach(id: str, verbose: bool, info_only: bool) -> None:
    """Open a session's terminal here. Ctrl-b d leaves it: it goes on, and a checkpoint is taken.

    F12 takes the conversation of a headless agent over into the full-screen client; /exit there, or leaving,
    hands it back.
    """
    from parhelia_mcp.verbs import attach as verb

    def choose(offer: verb.Offer) -> str | None:
        render.aside(offer.what + "\n" + render.choices(offer.choices))
        number = click.prompt("which", type=click.IntRange(0, len(offer.choices)), default=0, err=True)
        return offer.choices[number - 1] if number else None

    result = verb.run(Context(), verb.Request(id=id, verbose=verbose, info_only=info_only), render.aside, choose)
    if info_only:
        render.out(result.ssh)
    else:
        render.aside(render.left(result))


@click.command(
    "ssh-config",
    epilog="Example:  parhelia ssh-config >> ~/.ssh/config   then ssh, scp, rsync, VS Code to parhelia-task-1a2b3c4d",
)
@task_id(required=False)
@as_json
def ssh_config(id: str | None, as_json: bool) -> None:
    """Entries for ~/.ssh/config that make sessions hosts like any other."""
    from parhelia_mcp.verbs import ssh_config as verb

    result = verb.run(Context(), verb.Request(id=id))
    for note in result.notes:
        render.aside(note)
    show(result, result.text, as_json)
