"""Commands that give work and take it back: submit, run, send, pull."""

from __future__ import annotations

import time
from pathlib import Path

import click

from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, leave, made, offered, options, piped, show, sizes, task_id
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Usage

LONG_S = 5.0  # a wait that people do not sit out

placing = options(
    sizes,
    click.option("--workspace", metavar="DIR", help="Directory to copy, uncommitted work included. Default: here."),
    click.option("--model", metavar="M", help="Model of the agent."),
    click.option("--interactive", is_flag=True, help="Run the full-screen client, for attach."),
    click.option(
        "--from-checkpoint",
        metavar="CP",
        shell_complete=offered("checkpoints"),
        help="Start from this checkpoint: a fork.",
    ),
    click.option("--idempotency-key", metavar="K", help="Same key, same task: safe to repeat."),
    click.option("--dry-run", is_flag=True, help="Only say what it would cost."),
)


@click.command(
    epilog='Examples:  parhelia submit "Make the tests pass"   |   parhelia submit - < task.md   |   parhelia submit "Train it" --gpu A10G --timeout-hours 2'
)
@click.argument("prompt", required=False)
@click.option("--prompt-file", metavar="F", type=click.Path(path_type=Path), help="Read the task from a file.")
@placing
@click.option("--to", metavar="ID", shell_complete=offered("tasks"), help="Say it to this task instead.")
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit 1 when it failed.")
@as_json
def submit(prompt: str | None, prompt_file: Path | None, wait: bool, as_json: bool, **wanted: object) -> None:
    """Hand TASK to a separate agent on a copy of your workspace. `-` reads it from standard input."""
    from parhelia_mcp.verbs import submit as verb

    request = made(verb.Request, prompt=_prompt(prompt, prompt_file), **wanted)
    with render.progress(hidden=as_json) as tell:
        ctx = Context(tell=tell)
        result = verb.run(ctx, request, by_person=not ctx.in_agent)
    if not wait or result.session_id is None:
        show(result, render.submitted(result), as_json)
        return
    from parhelia_mcp.verbs import run as running

    began = time.monotonic()
    with render.progress(hidden=as_json) as tell:
        ctx = Context(tell=tell)
        ended = running.result(ctx, running.watch(ctx, ctx.store.session(result.session_id), replay=False))
    show(ended, render.ran(ended), as_json)
    _ring(ctx, began)
    leave(0 if ended.state == "completed" else 1)


def _prompt(prompt: str | None, file: Path | None) -> str | None:
    if file is not None and prompt is not None:
        raise Usage(
            "two-prompts",
            "Give the task as an argument or as a file, not both; nothing was started.",
            "parhelia submit --prompt-file F",
        )
    if file is not None:
        try:
            return file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as problem:
            raise Usage(
                "unreadable-prompt",
                f"{file} cannot be read as text ({getattr(problem, 'strerror', None) or problem}); nothing was started.",
                "parhelia submit --prompt-file F",
            ) from None
    return piped() if prompt == "-" else prompt


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Examples:  parhelia run -- make test   |   parhelia run --gpu A10G -- python train.py --epochs 3",
)
@placing
@click.option("-d", "detach", is_flag=True, help="Return at once, like submit.")
@as_json
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(command: tuple[str, ...], detach: bool, as_json: bool, **wanted: object) -> None:
    """Run CMD in a session of its own and be there: its output, its exit code. Ctrl-C ends the session."""
    from parhelia_mcp.verbs import run as verb
    from parhelia_mcp.verbs import submit as submitting

    began = time.monotonic()
    with render.progress(hidden=as_json) as tell:
        ctx = Context(tell=tell)
        request = made(verb.Request, command=list(command), **wanted)
        detach = detach or request.dry_run
        done = submitting.run(ctx, request) if detach else verb.run(ctx, request, replay=not as_json)
    if detach:
        show(done, render.submitted(done), as_json)
        return
    if as_json:
        show(done, "", True)
    else:
        render.aside(render.ran(done))
    _ring(ctx, began)
    leave(verb.exit_code(done))


def _ring(ctx: Context, began: float) -> None:
    """Call the person back to the terminal after a wait that was long enough to leave it."""
    if ctx.loaded.config.notify.bell and time.monotonic() - began > LONG_S:
        render.bell()


@click.command(epilog='Examples:  parhelia send task-1a2b "Use the other parser"   |   parhelia send task-1a2b allow')
@task_id()
@click.argument("message")
@as_json
def send(id: str, message: str, as_json: bool) -> None:
    """Say MESSAGE to a living session, or answer what it waits for with `allow` or `deny`."""
    from parhelia_mcp.verbs import send as verb

    answer = {"allow": True, "deny": False}.get(message)
    request = made(
        verb.Request,
        id=id,
        allow=answer,
        message=None if answer is not None else piped() if message == "-" else message,
    )
    result = verb.run(Context(), request)
    show(result, f"{result.session_id}: {result.what}", as_json)


@click.command(epilog="Examples:  parhelia pull task-1a2b   |   parhelia pull task-1a2b --apply")
@task_id()
@click.option("--apply", is_flag=True, help="Merge it into your working tree, all or nothing.")
@as_json
def pull(id: str, apply: bool, as_json: bool) -> None:
    """Fetch a session's work as a ref of your repository."""
    from parhelia_mcp.verbs import pull as verb

    result = verb.run(Context(), verb.Request(id=id, apply=apply))
    show(result, render.pulled(result), as_json)
