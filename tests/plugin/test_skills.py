"""The skills: their commands are ones that the command line takes, and every symptom people search for leads somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from parhelia_mcp.cli import parhelia
from tests import setup
from tests.front import Front
from tests.plugin.skill_commands import Command, commands, pages

SEARCHED = (
    "No workers available",
    "Checkpoint not found",
    "Corrupted checkpoint",
    "Connection refused",
    "Connection reset",
    "Container terminated",
    "Permission errors",
    "Dispatch times out",
    "PENDING",
    "RUNNING",
    "OOM",
)


def parse(words: list[str]) -> None:
    """Parse a command line down to its last subcommand without running anything. Raises what the command line would."""
    command: click.Command = parhelia
    context = click.Context(command, info_name="parhelia")
    while isinstance(command, click.Group):
        if command.invoke_without_command and (not words or words[0].startswith("-")):
            break
        assert words, "a subcommand is missing"
        name, command, words = command.resolve_command(context, list(words))
        context = click.Context(command, info_name=name, parent=context)
    command.make_context(str(context.info_name), list(words), parent=context.parent)


@pytest.mark.parametrize("command", commands(), ids=lambda command: f"{command.skill}: {command.text}")
def test_a_command_in_a_skill_is_one_that_the_command_line_takes(command: Command) -> None:
    parse(command.words)


OUTSIDE = (  # why a line that is right may not do its work in a test: no agent, GPU or terminal; the session lives or ended
    *("agent-missing", "gpu-unavailable", "no-terminal", "session-live", "session-ended"),
    *("nothing-to-do", "empty-command"),  # `parhelia run` and `parhelia submit`, named without their arguments
)


def test_every_command_in_a_skill_runs(users: Callable[..., Front]) -> None:
    front = users(PATH="/usr/bin:/bin")
    front.repository(**{"src/parser.py": "a\n", "Makefile": "test:\n\ttrue\n"})
    task = json.loads(front.text("run", "--json", "--", "sh", "-c", "echo b > src/parser.py"))["task_id"]
    kept = front.json("checkpoint", "list")["checkpoints"][0]["checkpoint_id"]
    names = {"ID": task, "CP": kept, "CP1": kept, "CP2": kept, "DIR": str(front.root / "out")}
    lines = {tuple(names.get(word, word) for word in command.words) for command in commands()}
    lines = [_priced(line) for line in sorted(lines)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.plugin.run_lines"],
        cwd=front.cwd,
        env={**front.env, "PYTHONPATH": str(setup.ROOT)},
        input=json.dumps(lines).encode(),
        capture_output=True,
        timeout=200,
        check=True,
    )
    wrong = []
    for line, (code, said) in zip(lines, json.loads(done.stdout), strict=True):
        refused = re.search(r"error\[([a-z-]+)\]", said)
        if "Traceback" in said or code and not (refused and refused[1] in OUTSIDE):
            wrong.append((" ".join(line), code, said))
    assert not wrong


def _priced(line: tuple[str, ...]) -> list[str]:
    """A line as it is; one for Modal, where there is no account, only up to its price."""
    return [line[0], "--dry-run", *line[1:]] if "modal" in line else list(line)


def test_there_are_commands_to_check_and_a_wrong_one_would_be_seen() -> None:
    assert len(commands()) > 100
    with pytest.raises(click.ClickException):
        parse(["submit", "x", "--no-such-option"])


def test_every_page_says_when_it_is_for_and_fits_a_screen_or_two() -> None:
    for page in pages():
        text = page.read_text()
        head = re.fullmatch(r"---\nname: (\S+)\ndescription: (.+)\n---\n.*", text, re.DOTALL)
        assert head, page
        assert head[1] == page.parent.name
        assert "Use " in head[2]
        assert len(text.splitlines()) <= 120, page


def test_what_people_search_for_leads_to_a_numbered_place() -> None:
    (page,) = (page.read_text() for page in pages() if page.parent.name == "parhelia-troubleshooting")
    rows = [line for line in page.splitlines() if re.fullmatch(r"\| .* \| [1-7] \|", line)]
    assert len(rows) == 7
    for phrase in SEARCHED:
        assert phrase.lower() in page.lower(), phrase
    for number in range(1, 8):
        assert f"\n## {number}. " in page


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("session won't start", "1. A session will not start"),
        ("ssh tunnel fails", "2. The ssh tunnel fails"),
        ("tunnel drops immediately", "2. The ssh tunnel fails"),
        ("checkpoint won't restore", "3. A checkpoint will not restore"),
        ("task stuck in running", "4. A task is stuck in running"),
        ("can't attach", "4. A task is stuck in running"),
        ("high unexpected costs", "5. Unexpected costs"),
        ("hooks not working", "6. Hooks do not work"),
        ("hook validation failures", "6. Hooks do not work"),
        ("container keeps crashing", "7. The container keeps crashing"),
        ("multiple restart attempts", "7. The container keeps crashing"),
    ],
)
def test_what_people_call_a_problem_leads_to_its_place(words: str, place: str, front: Front) -> None:
    assert front.text("help", *words.split()).startswith(f"## {place}")


def test_a_skill_that_a_page_names_exists() -> None:
    names = {page.parent.name for page in pages()}
    for page in pages():
        assert set(re.findall(r"skill `([a-z-]+)`", page.read_text())) <= names, page
