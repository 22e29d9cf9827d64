"""What the commands share: options that several take, and the way a Result gets out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from pydantic import BaseModel, ValidationError

from parhelia_mcp import render
from parhelia_mcp.errors import Usage
from parhelia_mcp.model import dollars

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def offered(name: str) -> Callable[..., Any]:
    """What TAB offers, from a function of `complete`, which is imported only then."""

    def answer(typed: click.Context, parameter: click.Parameter, start: str) -> Any:
        from parhelia_mcp.cli import complete

        return getattr(complete, name)(typed, parameter, start)

    return answer


def task_id(**settings: Any) -> Callable[..., Any]:
    """The argument ID, a task or session, completed with those there are."""
    return click.argument("id", shell_complete=offered("tasks"), **settings)


def checkpoint_id(name: str, **settings: Any) -> Callable[..., Any]:
    """An argument that is a checkpoint, completed with those there are."""
    return click.argument(name, shell_complete=offered("checkpoints"), **settings)


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator, in the order they are shown."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


class Dollars(click.ParamType):
    """An amount as a person types it, by the same rules as `budget set`."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from parhelia_mcp import budget  # brings the store, which `help` and completion do without

        return dollars(budget.amount(str(value), f"{param.opts[0] if param else ''} 5"))


def max_usd(help: str = "Most it may spend, compute and tokens together.") -> Callable[..., Any]:
    """The option --max-usd."""
    return click.option("--max-usd", type=Dollars(), metavar="USD", help=help)


sizes = options(
    click.option("--gpu", metavar="TYPE", help="GPU, e.g. A10G, L4, H100.", shell_complete=offered("gpus")),
    click.option("--memory", type=float, metavar="GIB", help="Memory limit in GiB."),
    click.option("--cpu", type=float, metavar="CORES", help="Cores."),
    click.option("--timeout-hours", type=float, metavar="H", help="The session ends by itself then."),
    max_usd(),
    click.option("--provider", metavar="NAME", help="local or modal."),
    click.option("--region", metavar="R", help="Region on modal, e.g. us-west."),
)


def made(request: type[BaseModel], **values: Any) -> Any:
    """The Request from what was typed. Raises Usage `bad-value` in a person's words."""
    try:
        return request(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as problem:
        raise said(problem) from None


def said(problem: ValidationError) -> Usage:
    """The first thing wrong with a Request, in one line."""
    first = problem.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "input"
    given = "" if isinstance(first.get("input"), dict) else f", not {str(first.get('input'))[:80]!r}"
    what = first["msg"].lower().removeprefix("input ").removeprefix("value error, ")
    return Usage("bad-value", f"{name} {what}{given}; nothing was done.", f"a valid --{name.replace('_', '-')}")


def show(result: BaseModel, text: str, json_wanted: bool) -> None:
    """Put a result out: one JSON object, or text for people."""
    render.out(render.as_json(result) if json_wanted else text)


def leave(code: int) -> None:
    """End the command with this exit code."""
    if code:
        raise click.exceptions.Exit(code)


def piped() -> str:
    """Standard input as text. Raises Usage `not-text`."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise Usage("not-text", "Standard input is not UTF-8 text; nothing was started.", "iconv -t UTF-8") from None
