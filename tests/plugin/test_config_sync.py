"""What of a person's configuration travels; a secret planted in every place reaches nothing that does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from parhelia_mcp import config_sync
from parhelia_mcp.hook_validation.sources import Place
from parhelia_mcp.hook_validator import HookValidator

KEY = "sk-ant-api03-PLANTED0123456789abcdef"


SERVERS = {
    "plain": {"command": "npx", "args": ["-y", "server"]},
    "env": {"command": "npx", "env": {"K": KEY}},
    "argument": {"command": "npx", "args": ["--api-key", KEY]},
    "headers": {"type": "http", "url": "https://x", "headers": {"Authorization": f"Bearer {KEY}"}},
    "address": {"type": "http", "url": f"https://x/?key={KEY}"},
    "expanded": {"command": "npx", "args": ["${SOME_TOKEN}"]},
    "parhelia": {"command": "parhelia-mcp"},
    "other-name": {"command": "python3", "args": ["-m", "parhelia_mcp"]},
}


def write(path: Path, content: object, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)


def settings_of(home: Path, project: Path) -> dict[str, object]:
    config = home / ".claude"
    return {
        "env": {"ANTHROPIC_API_KEY": KEY},
        "apiKeyHelper": f"echo {KEY}",
        "awsCredentialExport": f"echo {KEY}",
        "statusLine": {"type": "command", "command": f"echo {KEY}"},
        "model": "opus",
        "permissions": {"allow": [f"Read({project}/**)"]},
        "enabledPlugins": {"lint@mine": True, "off@mine": False, "parhelia@parhelia": True},
        "hooks": {
            "PreToolUse": [
                {"matcher": "Bash", "hooks": [{"type": "command", "command": f"{config}/hooks/guard.py"}]},
                {"hooks": [{"type": "command", "command": f"curl -H 'x: {KEY}' http://x"}]},
                {"hooks": [{"type": "command", "command": f"{home}/bin/mine"}]},
                {"hooks": [{"type": "http", "url": "http://x", "headers": {"a": KEY}}]},
            ]
        },
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with something useful and something secret in every place that Claude Code uses."""
    home = tmp_path / "home"
    config = home / ".claude"
    project = tmp_path / "project"
    write(config / "CLAUDE.md", f"Be brief.\nThe key is {KEY}.\nWrite tests.\n")
    write(config / "skills" / "review" / "SKILL.md", "---\nname: review\n---\nRead it twice.\n")
    write(config / "skills" / "review" / "check.py", "print('fine')\n", 0o700)
    write(config / "skills" / "review" / "upload.py", f"KEY = '{KEY}'\n")
    write(config / "skills" / "review" / ".env", f"TOKEN={KEY}\n")
    write(config / "agents" / "tester.md", "You test.\n")
    write(config / "commands" / "fix.md", f'password = "{KEY}"\nFix it.\n')
    write(config / "hooks" / "guard.py", "#!/usr/bin/env python3\n", 0o755)
    (home / ".ssh").mkdir()
    write(home / ".ssh" / "id_ed25519", f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n")
    (config / "skills" / "link.md").symlink_to(home / ".ssh" / "id_ed25519")
    for name in (".credentials.json", "history.jsonl", "mcp-needs-auth-cache.json", "settings.local.json"):
        write(config / name, {"secret": KEY})
    for name in ("projects/a/b.jsonl", "tasks/x/1.json", "backups/c", "shell-snapshots/s.sh", "session-env/e"):
        write(config / name, KEY)
    write(config / "settings.json", settings_of(home, project))
    write(home / ".claude.json", {"primaryApiKey": KEY, "mcpServers": SERVERS, "projects": {"/x": {"history": [KEY]}}})
    write(
        project / ".mcp.json",
        {"mcpServers": {"project": {"command": "uvx", "args": ["thing"]}, "keyed": SERVERS["env"]}},
    )
    plugins = config / "plugins"
    for name in ("lint", "off", "parhelia"):
        write(plugins / "cache" / name / ".claude-plugin" / "plugin.json", {"name": name})
        write(plugins / "cache" / name / ".mcp.json", {"mcpServers": {"s": {"command": "x", "env": {"K": "short"}}}})
        write(plugins / "cache" / name / ".env", f"K={KEY}")
    installed = {
        f"{name}@{market}": [{"installPath": str(plugins / "cache" / name)}]
        for name, market in (("lint", "mine"), ("off", "mine"), ("parhelia", "parhelia"))
    }
    write(
        plugins / "cache" / "lint" / ".claude-plugin" / "plugin.json",
        {"name": "lint", "mcpServers": {"s": {"command": "x", "env": {"K": "PLANTED too"}}}},
    )
    write(plugins / "installed_plugins.json", {"version": 2, "plugins": installed})
    return home


def test_no_planted_secret_travels(home: Path, tmp_path: Path) -> None:
    receipt = config_sync.collect(Place(home, tmp_path / "project", {}), tmp_path / "target")
    everything = [path.read_bytes() for path in (tmp_path / "target").rglob("*") if path.is_file()]
    assert len(everything) > 5
    assert not any(b"PLANTED" in data for data in everything)
    assert "PLANTED" not in json.dumps(receipt.as_dict())
    assert not any(path.is_symlink() for path in (tmp_path / "target").rglob("*"))


def test_what_is_useful_travels_and_works_elsewhere(home: Path, tmp_path: Path) -> None:
    receipt = config_sync.collect(Place(home, tmp_path / "project", {}), tmp_path / "target")
    carried = tmp_path / "target" / "claude"
    assert (
        carried / "CLAUDE.md"
    ).read_text() == "Be brief.\nThe key is [removed: it looked like a key].\nWrite tests.\n"
    assert (carried / "skills" / "review" / "check.py").stat().st_mode & 0o777 == 0o700
    assert (carried / "agents" / "tester.md").exists()
    settings = json.loads((carried / "settings.json").read_text())
    assert settings["model"] == "opus"
    assert settings["permissions"]["allow"] == ["Read(./**)"]
    groups = settings["hooks"]["PreToolUse"]
    assert [hook["command"] for group in groups for hook in group["hooks"]] == ["$HOME/.claude/hooks/guard.py"]
    servers = json.loads((tmp_path / "target" / "mcp.json").read_text())["mcpServers"]
    assert set(servers) == {"plain", "project"}
    assert receipt.plugins == ["lint-mine"]
    assert not (tmp_path / "target" / "plugins" / "lint-mine" / ".mcp.json").exists()

    away = tmp_path / "away"
    away.mkdir()
    carried.rename(away / ".claude")
    report = HookValidator(home=away, project=away / "workspace", environ={"PATH": "/usr/bin:/bin"}).validate()
    assert report.ok, str(report)
    assert report.hooks == 1


def test_the_receipt_says_why_each_thing_stays(home: Path, tmp_path: Path) -> None:
    dropped = {
        item.name: item.note
        for item in config_sync.collect(Place(home, tmp_path / "project", {}), tmp_path / "t").dropped
    }
    assert dropped["~/.claude/.credentials.json"] == "credentials"
    assert dropped["~/.claude/settings.json env"] == "environment block"
    assert dropped["~/.claude/settings.json apiKeyHelper"] == "credential helper"
    assert dropped["~/.claude/skills/link.md"] == "a link that leads outside"
    assert dropped["~/.claude/skills/review/.env"] == "its name says that it is private"
    assert dropped["~/.claude/settings.json hooks/PreToolUse/2"] == "its script lies outside ~/.claude/hooks"
    for name in ("env", "argument", "headers", "address", "expanded", "parhelia"):
        assert f"MCP server {name} in ~/.claude.json" in dropped


def test_parhelia_itself_never_travels(home: Path, tmp_path: Path) -> None:
    receipt = config_sync.collect(Place(home, tmp_path / "project", {}), tmp_path / "target")
    ours = {item.name: item.note for item in receipt.dropped if "Parhelia stays home" in item.note}
    servers = [f"MCP server {name} in ~/.claude.json" for name in ("parhelia", "other-name")]
    assert list(ours) == ["Parhelia's own MCP server and plugin", "plugin parhelia@parhelia", *servers]


def test_a_moved_configuration_travels_and_the_one_it_replaces_does_not(home: Path, tmp_path: Path) -> None:
    moved, place = tmp_path / "moved", Place(home, tmp_path / "project", {"CLAUDE_CONFIG_DIR": str(tmp_path / "moved")})
    script = f"python3 {moved}/hooks/mine.py"
    write(moved / "hooks" / "mine.py", "")
    write(moved / "CLAUDE.md", "Moved.")
    write(moved / "settings.json", {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": script}]}]}})
    write(moved / ".claude.json", {"mcpServers": {"there": {"command": "npx"}}, "primaryApiKey": KEY})
    receipt = config_sync.collect(place, tmp_path / "target")
    carried = tmp_path / "target" / "claude"
    assert (carried / "CLAUDE.md").read_text() == "Moved."
    assert not (carried / "skills").exists()
    (group,) = json.loads((carried / "settings.json").read_text())["hooks"]["Stop"]
    assert group["hooks"][0]["command"] == "python3 $HOME/.claude/hooks/mine.py"
    assert set(json.loads((tmp_path / "target" / "mcp.json").read_text())["mcpServers"]) == {"there", "project"}
    assert [item.name for item in receipt.dropped].count(str(moved / ".claude.json")) == 1


def test_a_server_that_is_switched_off_stays_so(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project / ".claude" / "settings.local.json", {"disabledMcpjsonServers": ["project", 1]})
    off = {str(project): {"disabledMcpServers": ["plain"]}}
    write(
        home / ".claude.json", {"mcpServers": {"plain": SERVERS["plain"], "project": SERVERS["plain"]}, "projects": off}
    )
    receipt = config_sync.collect(Place(home, project, {}), tmp_path / "target")
    assert set(json.loads((tmp_path / "target" / "mcp.json").read_text())["mcpServers"]) == {"project"}
    stayed = [item.name for item in receipt.dropped if item.note == "it is switched off here"]
    assert stayed == ["MCP server plain in ~/.claude.json", "MCP server project in .mcp.json"]


@pytest.mark.parametrize(
    "name, content",
    [
        ("settings.json", "{"),
        ("settings.json", []),
        ("settings.json", {"hooks": [1], "permissions": ["x"], "enabledPlugins": [2]}),
        ("settings.json", {"hooks": {"Stop": [{"hooks": "x"}, 3]}, "permissions": {"allow": "x"}}),
        ("plugins/installed_plugins.json", {"plugins": {"lint@mine": {}}}),
        ("plugins/installed_plugins.json", {"plugins": [1]}),
        ("../.claude.json", {"mcpServers": [1], "projects": 2}),
        ("../.claude.json", {"mcpServers": {"a": 1, "b": {"url": "http://[x"}, "c": {"url": 3}}}),
    ],
)
def test_what_is_broken_stays_and_stops_nothing(home: Path, tmp_path: Path, name: str, content: object) -> None:
    write(home / ".claude" / name, content)
    receipt = config_sync.collect(Place(home, tmp_path / "project", {}), tmp_path / "target")
    assert "~/.claude/CLAUDE.md" in [item.name for item in receipt.carried]


def test_what_cannot_be_copied_is_named(home: Path, tmp_path: Path) -> None:
    config = home / ".claude"
    (config / "CLAUDE.md").unlink()
    (config / "CLAUDE.md").symlink_to("CLAUDE.md")
    os.mkfifo(config / "skills" / "pipe")
    write(config / "skills" / "heavy" / "model.bin", "x" * (4 << 20))
    for number in range(2):
        shutil.copy(config / "skills" / "heavy" / "model.bin", config / "skills" / "heavy" / f"{number}.bin")
    dropped = {
        item.name: item.note for item in config_sync.collect(Place(home, tmp_path, {}), tmp_path / "target").dropped
    }
    assert dropped["~/.claude/CLAUDE.md"] == "a link that leads nowhere"
    assert dropped["~/.claude/skills/pipe"] == "not a regular file"
    assert dropped["~/.claude/skills/heavy"] == "more than 2,000 files or 10 MiB"


def test_hooks_that_are_switched_off_stay_so(home: Path, tmp_path: Path) -> None:
    settings = {**settings_of(home, tmp_path / "project"), "disableAllHooks": True}
    write(home / ".claude" / "settings.json", settings)
    write(home / ".claude/plugins/cache/lint/hooks/hooks.json", {"hooks": {}})
    config_sync.collect(Place(home, tmp_path / "project", {}), tmp_path / "target")
    assert "hooks" not in json.loads((tmp_path / "target/claude/settings.json").read_text())
    assert (tmp_path / "target/plugins/lint-mine/.claude-plugin").is_dir()
    assert not (tmp_path / "target/plugins/lint-mine/hooks").exists()


def test_an_empty_home_carries_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    receipt = config_sync.collect(Place(tmp_path / "home", tmp_path, {}), tmp_path / "target")
    assert (receipt.carried, len(receipt.dropped)) == ([], 1)
    assert json.loads((tmp_path / "target" / "mcp.json").read_text()) == {"mcpServers": {}}
