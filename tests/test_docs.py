"""README is true: its commands are taken by the command line, its demo is what appears, its files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from parhelia_mcp.config import Config
from tests import setup
from tests.front import Front
from tests.plugin.skill_commands import CUT, commands_in
from tests.plugin.test_skills import parse

README = (setup.ROOT / "README.md").read_text()
HARMLESS = (
    "status",
    "list",
    "budget show",
    "budget history",
    "budget estimate",
    "help",
    "completion",
    "init",
    "config",
)


def commands() -> list[str]:
    return sorted({CUT.sub("", text) for text in commands_in(README) if "$ parhelia" not in text})


@pytest.mark.parametrize("command", commands())
def test_a_command_in_readme_is_one_that_the_command_line_takes(command: str) -> None:
    import shlex

    parse(shlex.split(command)[1:])


def test_readme_has_commands_to_check() -> None:
    assert len(commands()) > 30


def test_what_readme_shows_anyone_may_type_runs(front: Front) -> None:
    ran = 0
    for command in commands():
        words = command.removeprefix("parhelia ")
        if words.startswith(HARMLESS) and not words.endswith(" ID"):
            front.run(*[word.strip('"') for word in words.split()])
            ran += 1
    assert ran >= 6


def normal(text: str) -> str:
    """A run without what differs between two of them: ids, commits, ages."""
    text = re.sub(r"task-[0-9a-z]{8}", "task-ID", text)
    text = re.sub(r"commit [0-9a-f]{7,40}", "commit HASH", text)
    text = re.sub(r"index [0-9a-f]+\.\.[0-9a-f]+", "index A..B", text)
    return re.sub(r" +\d+s\b", " Ns", text)


def test_the_demo_in_readme_is_what_appears() -> None:
    done = subprocess.run(
        [sys.executable, str(setup.ROOT / "tests" / "demo" / "demo.py")], capture_output=True, text=True, check=True
    )
    shown = re.search(r"```console\n(.*?)\n```", README, re.DOTALL)
    assert shown
    assert normal(done.stdout.strip()) == normal(shown[1].strip())


def test_the_picture_is_of_the_demo() -> None:
    tree = ElementTree.parse(setup.ROOT / "tests" / "demo" / "demo.svg")
    text = "".join(tree.getroot().itertext()).replace("\xa0", " ")
    for words in ("parhelia run -- sh work.sh", "completed", "git diff main", "Your tree is as it was"):
        assert words in text


def test_readme_fits_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 220
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (setup.ROOT / target).exists(), target


def test_the_settings_file_of_init_names_every_key_and_loads_with_all_of_them_set(front: Front) -> None:
    template = front.text("init", "--print")
    path = front.user_home / ".config" / "parhelia" / "parhelia.toml"
    assert front.json("init")["written"] is True
    assert path.read_text() == template
    path.write_text(template + "# mine\n")
    assert front.json("init")["written"] is False
    assert path.read_text().endswith("# mine\n")
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", template, flags=re.M))
    config = front.json("config")
    for section, field in Config.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"{section}.{key}" in config["sources"], key
    changed = {"region", "image", "dockerfile", "apt", "setup", "secrets", "model", "permission_mode", "per_day_usd"}
    defaults = Config().model_dump()
    for section in ("modal", "local", "agent", "budget", "checkpoint"):
        for key, value in defaults[section].items():
            assert key in changed | {"exclude"} or config["config"][section][key] == value, key
