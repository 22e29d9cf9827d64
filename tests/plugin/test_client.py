"""The plugin in the real Claude Code: loaded, guarded, set up, its skills read. The model is scripted, the server a stand-in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parhelia_mcp import prices
from tests import setup
from tests.claude_client import claude_path
from tests.plugin.client import Run, environment, run_claude

PARTS = (
    "hooks",
    "skills",
    ".claude-plugin",
    ".mcp.json",
    "settings.example.json",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
BOTH_NAMES = ("mcp__parhelia__", "mcp__plugin_parhelia_parhelia__")
HEAVY = "torchrun --help || true"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The plugin as it is installed: the repository's root without this checkout's environment."""
    root = tmp_path / "parhelia plugin"  # a space, as in many a home directory
    root.mkdir()
    for name in PARTS:
        source = setup.ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    return root


@pytest.fixture
def served(tmp_path: Path) -> dict[str, str]:
    """An environment with a server to find, and a budget of which half is left."""
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    shutil.copy(Path(__file__).with_name("server.py"), programs / "parhelia-mcp")
    (programs / "parhelia-mcp").chmod(0o755)
    numbers = {"seq": 1, "ceiling_usd": 20, "spent_usd": 8, "reserved_usd": 2, "warning_threshold": 0.8}
    (state / "budget.json").write_text(json.dumps({**numbers, "rates": prices.rates()}))
    return {"PATH": f"{programs}:/usr/bin:/bin", "PARHELIA_HOME": str(state)}


def calls(prefix: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{prefix}submit", {"prompt": "x", "max_usd": 1}),
        (f"{prefix}submit", {"prompt": "x", "max_usd": 9}),
        (f"{prefix}submit", {"prompt": "x", "max_usd": 11}),
        (f"{prefix}status", {}),
        (f"{prefix}recover", {"id": "task-abcdefgh", "action": "kill"}),
        ("Bash", {"command": HEAVY}),
        ("Bash", {"command": "parhelia submit x --max-usd 11; touch RAN"}),
    ]


def guarded(run: Run) -> None:
    """Hold a run of `calls` to what each hook has to say, and to whether the tool ran."""
    passed, asked, denied, status, kill, heavy, shell = run.tool_results()
    assert "the tool submit ran" in passed
    assert "may cost up to $1.00; $10.00 of $20.00 is left" in run.told
    assert "above the warning threshold" in asked
    assert "$11.00; $10.00 of $20.00" in denied
    assert "the tool status ran" in status
    assert "has no checkpoint on this machine" in kill
    assert "the tool recover ran" not in run.told
    assert "Only a suggestion" in run.told
    assert "the tool" not in heavy
    assert "Nothing was started" in shell
    assert run.result["terminal_reason"] == "completed"
    assert len(run.result["permission_denials"]) == 4


def test_the_plugin_is_loaded_and_its_hooks_act(plugin: Path, served: dict[str, str], tmp_path: Path) -> None:
    run = run_claude(
        tmp_path / "home", tmp_path / "work", calls(BOTH_NAMES[1]), "--plugin-dir", str(plugin), env=served
    )
    assert run.init["mcp_servers"] == [{"name": "plugin:parhelia:parhelia", "status": "connected"}]
    guarded(run)
    assert not (tmp_path / "work" / "RAN").exists()


def test_plain_settings_and_a_clone_opened_as_a_project_do_the_same(
    plugin: Path, served: dict[str, str], tmp_path: Path
) -> None:
    env = {**served, "PARHELIA_ROOT": str(plugin)}
    settings = str(plugin / "settings.example.json")
    run = run_claude(tmp_path / "home", plugin, calls(BOTH_NAMES[0]), "--settings", settings, env=env)
    assert run.init["mcp_servers"] == [{"name": "parhelia", "status": "connected"}]
    guarded(run)
    assert not (plugin / "RAN").exists()


FAULTS = {"crash": "exit 1", "hang": "exec sleep 60", "garbage": "echo '{nonsense'", "killed": "kill -9 $$"}


def test_a_broken_guard_blocks_spending_and_nothing_else(plugin: Path, served: dict[str, str], tmp_path: Path) -> None:
    wanted = [
        (f"{BOTH_NAMES[1]}submit", {"prompt": "x"}),
        (f"{BOTH_NAMES[1]}status", {}),
        ("Bash", {"command": "touch RAN"}),
    ]

    def broken(fault: str) -> tuple[Run, Path]:
        python, project = tmp_path / fault, tmp_path / f"work-{fault}"
        python.write_text(f"#!/bin/sh\n{FAULTS[fault]}\n")
        python.chmod(0o755)
        env = {**served, "PARHELIA_PYTHON": str(python)}
        run = run_claude(tmp_path / f"home-{fault}", project, wanted, "--plugin-dir", str(plugin), env=env)
        return run, project

    with ThreadPoolExecutor(2) as clients:
        for run, project in clients.map(broken, FAULTS):
            spending, status, _ = run.tool_results()
            assert "spending guard could not judge this call" in spending
            assert "the tool status ran" in status
            assert (project / "RAN").exists()


def test_a_skill_is_invoked_by_the_model_and_by_its_slash_name(
    plugin: Path, served: dict[str, str], tmp_path: Path
) -> None:
    load = ("--plugin-dir", str(plugin))
    by_model = run_claude(
        tmp_path / "home", tmp_path / "work", [("Skill", {"skill": "parhelia:checkpoint-resume"})], *load, env=served
    )
    names = {f"parhelia:{path.name}" for path in (plugin / "skills").iterdir()}
    assert names <= set(by_model.init["skills"])
    assert len(names) == 6
    assert "parhelia checkpoint rollback CP" in by_model.told
    slash = "/parhelia:parhelia-troubleshooting Connection refused"
    by_name = run_claude(tmp_path / "home", tmp_path / "work", [], *load, prompt=slash, env=served)
    assert "parhelia recover ID" in by_name.told
    assert "Base directory for this skill" in by_name.told


def client(home: Path, cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [claude_path(), *argv], cwd=cwd, env=environment(home), capture_output=True, text=True, timeout=60, check=False
    )


def test_the_client_finds_no_fault_with_the_plugin(tmp_path: Path) -> None:
    for path in (".", "./.claude-plugin/plugin.json"):
        done = client(tmp_path, setup.ROOT, "plugin", "validate", "--strict", path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_repository_is_its_own_marketplace(plugin: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for argv in (("marketplace", "add", "./"), ("install", "parhelia@parhelia")):
        done = client(home, plugin, "plugin", *argv)
        assert done.returncode == 0, done.stdout + done.stderr
    shown = client(home, plugin, "plugin", "details", "parhelia").stdout
    assert "Skills (6)" in shown
    assert "MCP servers (1)" in shown


UV = """#!/bin/sh
echo "$@" >>"$HOME/uv.log"
for last; do :; done
case $1 in
  venv) mkdir -p "$last/bin" && ln -s /usr/bin/python3 "$last/bin/python" ;;
  pip) sleep 3 && cp "$HOME/server.py" "$CLAUDE_PLUGIN_DATA/venv/bin/parhelia-mcp" ;;
esac
"""


def until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_first_start_sets_up_once_and_the_next_one_has_the_tools(plugin: Path, tmp_path: Path) -> None:
    home, programs = tmp_path / "home", tmp_path / "bin"
    for folder in (home, programs):
        folder.mkdir()
    shutil.copy(Path(__file__).with_name("server.py"), home / "server.py")
    (home / "server.py").chmod(0o755)
    (programs / "uv").write_text(UV)
    (programs / "uv").chmod(0o755)
    env = {"PATH": f"{programs}:/usr/bin:/bin"}
    load = ("--plugin-dir", str(plugin))
    data = home / ".claude" / "plugins" / "data" / "parhelia-inline"

    first = run_claude(home, tmp_path / "work", [], *load, env=env)
    assert "Parhelia is being set up in the background" in first.told
    assert not [tool for tool in first.init["tools"] if "parhelia" in tool]
    until((data / "ready").exists)
    assert (data / "python").read_text().strip().startswith("/usr/bin/python3")

    again = run_claude(home, tmp_path / "work", [(f"{BOTH_NAMES[1]}status", {})], *load, env=env)
    assert "being set up" not in again.told
    assert again.init["mcp_servers"] == [{"name": "plugin:parhelia:parhelia", "status": "connected"}]
    assert "the tool status ran" in again.tool_results()[0]
    assert len((home / "uv.log").read_text().splitlines()) == 2


def test_set_up_makes_an_environment_with_this_package_and_two_at_once_make_one(plugin: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(setup.ROOT / "parhelia_mcp", plugin / "parhelia_mcp")
    project = plugin / "pyproject.toml"
    project.write_text(re.sub(r"\ndependencies = \[[^]]*\]", "\ndependencies = []", project.read_text()))
    registry = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    python = Path(os.path.realpath(setup.ROOT / ".venv" / "bin" / "python")).parent
    env = {
        **registry,
        "HOME": os.environ["HOME"],
        "PATH": f"{python}:/usr/bin:/bin",
        "CLAUDE_PLUGIN_DATA": str(data),
    }
    both = [subprocess.Popen(["sh", str(plugin / "hooks" / "setup")], env=env) for _ in range(2)]
    assert [one.wait(90) for one in both] == [0, 0]
    until((data / "ready").exists)
    assert (data / "setup.log").read_text().count("setting up") == 1
    found = subprocess.run(
        ["sh", str(plugin / "hooks" / "launch"), "--find"],
        env={"CLAUDE_PLUGIN_DATA": str(data), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(data / "venv" / "bin" / "parhelia-mcp")
    recorded = (data / "python").read_text().strip()
    assert Path(recorded).exists()
    assert "shims" not in recorded and not recorded.startswith(str(data))
