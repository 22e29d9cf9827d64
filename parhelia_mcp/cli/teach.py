"""Commands that teach: help by topic or by symptom, and completion for the shell."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import click
from pydantic import BaseModel

import parhelia_mcp
from parhelia_mcp import render
from parhelia_mcp.cli.common import as_json, offered
from parhelia_mcp.errors import LocalFault, Usage

PACKAGE = Path(parhelia_mcp.__file__).parent
TOPICS = {  # topic -> the skill that holds its text, for people and agents alike
    "troubleshooting": "parhelia-troubleshooting",
    "delegate": "delegate",
    "checkpoints": "checkpoint-resume",
    "attach": "interactive-attach",
    "budget": "budget-management",
    "gpu": "gpu-configuration",
    "config": "",  # the commented settings file itself
}
PROGRAM = "_PARHELIA_COMPLETE"


@click.command(
    "help",
    epilog='Examples:  parhelia help troubleshooting   |   parhelia help "connection refused"   |   parhelia help config',
)
@click.argument("topic", nargs=-1, shell_complete=offered("topics"))
@as_json
@click.pass_context
def help_(typed: click.Context, topic: tuple[str, ...], as_json: bool) -> None:
    """Explain a topic, a command, or what to do about a symptom in your own words."""
    page = _page(typed.find_root(), topic)
    if as_json:
        render.out(render.as_json(page))
    elif page.markdown:
        render.page(page.text)
    else:
        render.out(page.text)


class Page(BaseModel):
    """What help says."""

    topic: str
    text: str
    markdown: bool


def _page(root: click.Context, topic: tuple[str, ...]) -> Page:
    """Raises Usage `unknown-topic` with the nearest."""
    wanted = " ".join(topic).strip().lower()
    if not wanted:
        topics = f"Topics: {', '.join(TOPICS)}; or a symptom: parhelia help connection refused"
        return Page(topic="", text=f"{root.get_help()}\n\n{topics}", markdown=False)
    if wanted in TOPICS:
        return Page(topic=wanted, text=_text(wanted), markdown=True)
    if shown := _command(root, topic):
        return Page(topic=wanted, text=shown.get_help(), markdown=False)
    if found := _about(wanted):
        return Page(topic=wanted, text=found, markdown=True)
    commands = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    near = difflib.get_close_matches(wanted, [*TOPICS, *commands], n=1)
    raise Usage(
        "unknown-topic",
        f"Nothing about {wanted[:60]!r}; topics are {', '.join(TOPICS)}.",
        f"parhelia help {near[0] if near else 'troubleshooting'}",
    )


def _command(typed: click.Context, words: tuple[str, ...]) -> click.Context | None:
    """The command of this name, or of a group and a name, as it would be called."""
    for word in words:
        named = typed.command.get_command(typed, word) if isinstance(typed.command, click.Group) else None
        if named is None:
            return None
        typed = click.Context(named, info_name=word, parent=typed)
    return typed


def _text(topic: str) -> str:
    if topic == "config":
        return f"```toml\n{(PACKAGE / 'parhelia.toml').read_text()}```\n"
    return _skill(TOPICS[topic]).partition("\n---\n")[2].strip() + "\n"


def _skill(name: str) -> str:
    """A skill's text: in the package where it was installed, beside it in a checkout."""
    for folder in (PACKAGE / "_skills", PACKAGE.parent / "skills"):
        if (folder / name / "SKILL.md").is_file():
            return (folder / name / "SKILL.md").read_text()
    raise LocalFault(
        "help-missing", f"The text of {name} was not installed.", "pip install --force-reinstall parhelia-mcp"
    )


def _about(words: str) -> str | None:
    """The sections that speak of a symptom: those that the troubleshooting table sends it to, else those that say it."""
    wanted = re.findall(r"[\w-]+", words)
    if not wanted:
        return None
    guide = _text("troubleshooting")
    sent = {
        row[1].strip()
        for row in re.findall(r"^\| (.+?) \| (\d+) \|$", guide, re.M)
        if all(word in row[0].lower() for word in wanted)
    }
    sections = re.split(r"^(?=## )", guide, flags=re.M)[1:]
    found = [one for one in sections if one.removeprefix("## ").split(".")[0] in sent]
    if not found:
        others = [
            part
            for topic in TOPICS
            if topic != "troubleshooting"
            for part in re.split(r"^(?=## )", _text(topic), flags=re.M)[1:]
        ]
        found = [one for one in (*sections, *others) if all(word in one.lower() for word in wanted)]
    return "\n".join(found[:3]) or None


@click.command(
    epilog='Examples:  eval "$(parhelia completion bash)"   |   parhelia completion fish > ~/.config/fish/completions/parhelia.fish'
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(typed: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and living ids in SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    script = kind(typed.find_root().command, {}, "parhelia", PROGRAM) if kind else None
    render.out(script.source_template % script.source_vars() if script else "")
