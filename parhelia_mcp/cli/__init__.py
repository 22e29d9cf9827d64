"""The command line: flags to a Request, a verb, its Result to text or JSON, an exit code. Decides nothing.

Commands are loaded when they are called, so that `parhelia list` pays for `list` alone.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from parhelia_mcp import __version__, render
from parhelia_mcp.errors import LocalFault, Problem, Usage

TABLE = {  # command -> module of this package : attribute
    "submit": "work:submit",
    "run": "work:run",
    "status": "look:status",
    "list": "look:list_",
    "task": "look:task",
    "session": "look:session",
    "logs": "look:logs",
    "send": "work:send",
    "attach": "room:attach",
    "ssh-config": "room:ssh_config",
    "pull": "work:pull",
    "checkpoint": "keep:checkpoint",
    "resume": "keep:resume",
    "budget": "money:budget",
    "hooks": "hooks:hooks",
    "recover": "mend:recover",
    "doctor": "mend:doctor",
    "report": "mend:report",
    "reconcile": "mend:reconcile",
    "cleanup": "mend:cleanup",
    "config": "setup:config",
    "init": "setup:init",
    "watch": "live:watch",
    "export": "money:export",
    "help": "teach:help_",
    "completion": "teach:completion",
    "mcp": "setup:mcp",
}


class Commands(click.Group):
    """The top level, from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(TABLE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in TABLE:
            return None
        module, _, attribute = TABLE[cmd_name].partition(":")
        return getattr(importlib.import_module(f"parhelia_mcp.cli.{module}"), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in TABLE and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], TABLE, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            hint = f"parhelia {near[0]}" if near else "parhelia help"
            raise Usage("unknown-command", f"No command {args[0][:40]!r}.{guess}", hint)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "--version", message="parhelia %(version)s")
@click.pass_context
def parhelia(ctx: click.Context) -> None:
    """Hand work to separate Claude Code sessions, keep it safe, stay under budget, get it back as a branch."""
    if ctx.invoked_subcommand is None:
        render.out(render.FIRST_STEPS)


def main() -> None:
    """Run one command and exit with its code. Nothing but a Problem's text ever reaches the person for an error."""
    argv = sys.argv[1:]
    as_json = "--json" in (argv[: argv.index("--")] if "--" in argv else argv)
    interruptions = catch_interruptions()
    try:
        code = _run(argv, as_json, interruptions)
    except KeyboardInterrupt:  # while an error was being said
        code = 130
    _leave(code)


def _run(argv: list[str], as_json: bool, interruptions: list[int]) -> int:
    try:
        code = parhelia.main(argv, prog_name="parhelia", standalone_mode=False)
        sys.stdout.flush()
    except Problem as problem:
        code = _failed(problem, as_json, argv)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.exceptions.NoArgsIsHelpError as asked:
        code = _failed(_usage(asked, argv), as_json, argv) if as_json else render.out(asked.ctx.get_help())
    except click.ClickException as problem:
        code = _failed(_usage(problem, argv), as_json, argv)
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except SystemExit as ended:
        code = 141 if ended.code == 1 else ended.code  # 1 is click's word for a reader that has gone, and not ours
    except Exception as fault:  # noqa: BLE001 - the outermost loop: a person gets a sentence and a place to look
        # A library may wrap the interruption in an error of its own.
        code = 130 if interruptions else _failed(_unexpected(fault, argv), as_json, argv)
    return code if isinstance(code, int) else 0


def catch_interruptions() -> list[int]:
    """Make an interruption a KeyboardInterrupt wherever it falls; each is noted in the list.

    Python drops an exception in a callback and prints a traceback instead: that one comes again a moment later.
    """
    seen: list[int] = []
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return seen

    def interrupt(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(unraisable)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    sys.unraisablehook = dropped
    return seen


def _leave(code: int) -> None:
    """Exit without the interpreter's own flush, which would complain about a closed pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is too late to be interrupted
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _failed(problem: Problem, as_json: bool, argv: list[str]) -> int:
    try:
        render.problem(problem, as_json=as_json)
    except BrokenPipeError:
        return 141
    except (LocalFault, OSError):
        pass  # there is no place left to say it; the code does
    return 125 if argv[:1] == ["run"] else problem.exit_code


def _usage(problem: click.ClickException, argv: list[str]) -> Usage:
    """Click's complaint in our form, with the command's own help as the next step."""
    context = getattr(problem, "ctx", None)
    path = context.command_path if context else _path(argv)
    message = problem.format_message()
    near = getattr(problem, "possibilities", None)
    hint = f"{path} {sorted(near)[0]}" if near else f"{path} --help"
    return Usage("usage", message.splitlines()[0] if message else "This command line is not complete.", hint)


def _path(argv: list[str]) -> str:
    """The command that was typed, for a complaint that does not say which one it is about."""
    command: click.Command | None = parhelia
    words = ["parhelia"]
    for word in argv:
        command = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if command is None:
            break
        words.append(word)
    return " ".join(words)


def _unexpected(fault: Exception, argv: list[str]) -> Problem:
    """A fault of ours: its traceback goes to a file, its name and its id to the person."""
    from parhelia_mcp import faults
    from parhelia_mcp.context import Context

    command = argv[0] if argv and argv[0] in TABLE else "parhelia"
    kept = faults.record(Context(cwd=Path("/")), fault, command)
    return Problem(
        "internal-error",
        f"Parhelia failed ({type(fault).__name__}, fault {kept.id}); what was stored before is safe.",
        f"parhelia doctor, and send {kept.path} with a bug report" if kept.path else "parhelia doctor",
    )
