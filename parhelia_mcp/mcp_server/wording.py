"""What a model reads when something is refused: the cause with its numbers, and the call to make now."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from parhelia_mcp.errors import Problem

PERSONS = frozenset({"killed"})  # refusals whose way out is not an agent's
SHOWN = 60  # characters of a value that is quoted back
_CALLS = tuple(
    (re.compile(pattern), call)
    for pattern, call in (
        (r"parhelia logs (\S+) --follow", 'status(id="{0}", wait_s=300)'),
        (r"parhelia logs (\S+) --tail (\d+)", 'logs(id="{0}", tail={1})'),
        (r"parhelia logs (\S+)", 'logs(id="{0}")'),
        (r"parhelia (?:(?:task|session) show|status) (\S+)", 'status(id="{0}")'),
        (r"parhelia (?:task |session )?list|parhelia status", "status()"),
        (r"parhelia send (\S+) (allow|deny)", 'submit(to="{0}", prompt="{1}")'),
        (r'parhelia (?:send|submit --to) (\S+) "([^"]*)"', 'submit(to="{0}", prompt="{1}")'),
        (r"parhelia recover (\S+) --action (\w+)", 'recover(id="{0}", action="{1}")'),
        (r"parhelia recover (\S+) --yes", 'recover(id="{0}", action="resume")'),
        (r"parhelia recover (\S+)", 'recover(id="{0}")'),
        (r"parhelia session kill (\S+)", 'recover(id="{0}", action="kill")'),
        (
            r"parhelia resume (\S+) --target (\S+) --force",
            'checkpoint(action="restore", id="{0}", target="{1}", overwrite=true)',
        ),
        (r"parhelia resume (\S+) --checkpoint-id (\S+)", 'recover(id="{0}", action="resume", from_checkpoint="{1}")'),
        (r"parhelia resume ([^\s,;]+)(?! --)", 'recover(id="{0}", action="resume")'),
        (r"parhelia checkpoint list --session (\S+)", 'checkpoint(action="list", id="{0}")'),
        (r"parhelia checkpoint list", 'checkpoint(action="list")'),
        (r"parhelia checkpoint (show|verify|create) ([a-z0-9.-]+)", 'checkpoint(action="{0}", id="{1}")'),
        (r'parhelia submit "([^"]*)"', 'submit(prompt="{0}")'),
        (r"parhelia run -- (\w+) (\S+)", 'submit(command=["{0}", "{1}"])'),
        (r"parhelia submit with", "submit with"),
        (r"parhelia submit --dry-run|parhelia budget estimate", 'budget(action="estimate")'),
        (r"parhelia budget show", "budget()"),
    )
)
_RAISE = re.compile(r"(?:ask the person to type: )?parhelia budget set (\d+(?:\.\d+)?)")
_FLAG = re.compile(r'--(?:force\b|([a-z][a-z-]*)(?: ("[^"]*"|[^\s,;)"]*[^\s,;.)"]))?)')
_FLAGS = {
    "gpu",
    "cpu",
    "memory",
    "timeout-hours",
    "max-usd",
    "provider",
    "region",
    "workspace",
    "model",
    "idempotency-key",
}
_FLAGS |= {"status", "from-checkpoint", "to", "tail", "grep", "stream", "cursor"}


def as_call(command: str, *, may_raise: bool = False) -> str:
    """A command line as the tool call that does the same; what no tool does, is a person's, or is a chain stays as it is."""
    if "&&" in command or (command.startswith("ask the person to type: ") and not _RAISE.match(command)):
        return command
    text = re.sub(r"leave --(\S+) out", r"leave out \1", command)
    text = _RAISE.sub(lambda found: _raising(found[1], may_raise), text)
    for pattern, call in _CALLS:
        text = pattern.sub(lambda found, call=call: call.format(*found.groups()), text)
    return _FLAG.sub(_argument, text)


def _raising(amount: str, may_raise: bool) -> str:
    if may_raise:
        return f'budget(action="set", ceiling_usd={amount})'
    return f"ask the person to type: parhelia budget set {amount}"


def _argument(found: re.Match[str]) -> str:
    flag, value = found[1], found[2]
    if flag is None:
        return "overwrite=true"
    if flag not in _FLAGS:
        return found[0]
    name = "state" if flag == "status" else flag.replace("-", "_")
    if value is None:
        return name
    plain = value.strip('"')
    return f"{name}={plain}" if re.fullmatch(r"\d+(\.\d+)?", plain) else f"{name}={json.dumps(plain)}"


def problem(what: Problem, *, may_raise: bool) -> str:
    """One of our errors in a model's terms."""
    hint = f"ask the person to type: {what.hint}" if what.code in PERSONS else as_call(what.hint, may_raise=may_raise)
    step = f" Next: {hint}" if what.hint else ""
    return f"{what.message}{step} [{what.code}]"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A name that nothing has, with the nearest that something has."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
    guess = f"; did you mean {near[0]}?" if near else "."
    return (
        f"There is no {kind} {_quoted(name)}{guess} There are: {', '.join(names)}. Nothing was done. [unknown-{kind}]"
    )


def arguments(what: ValidationError) -> str:
    """What is wrong with the arguments of a call, a clause each."""
    found = what.errors(include_url=False)
    clauses = list(dict.fromkeys(map(_clause, found)))
    more = f"; and {len(clauses) - 5} more" if len(clauses) > 5 else ""
    return f"{'; '.join(clauses[:5])}{more}. Nothing was done. [bad-value]"


def _clause(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("function-", "constrained-")))
    if error["type"] == "missing":
        return f"{name} is required"
    context, value = error.get("ctx", {}), error.get("input")
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        near = difflib.get_close_matches(str(value).lower(), choices, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        return f"{name} is one of {', '.join(choices)}, not {_quoted(value)}{guess}"
    said = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{name} {said[:1].lower()}{said[1:]}, not {_quoted(value)}"


def _quoted(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
