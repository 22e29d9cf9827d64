"""A person's Claude Code configuration acts in a session of the real client, and no secret beside it gets there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.claude_client import claude_path
from tests.fake_api import FakeApi, fake_api, say, use
from tests.front import Front
from tests.plugin.test_config_sync import write

PLANTED = "PLANTED-a-word-no-pattern-knows"
SHAPED = "sk-ant-api03-PLANTED0123456789abcdef"  # found by its shape wherever it stands


@pytest.fixture
def front(users: Callable[..., Front]) -> Front:
    made = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-a-test")
    made.repository()
    return made


def useful(home: Path) -> None:
    """What a person has set up, each with a word of its own."""
    config = home / ".claude"
    write(config / "CLAUDE.md", f"Write like a FALCON.\nThe key is {SHAPED}.\n")
    write(
        config / "skills/review/SKILL.md", "---\nname: review\ndescription: How to review\n---\nRead it as an OTTER.\n"
    )
    write(config / "agents/tester.md", "---\nname: tester\ndescription: Tests like a HERON\n---\nYou test.\n")
    write(config / "commands/shout.md", "Shout like a WALRUS: $ARGUMENTS\n")
    write(config / "hooks/mark.sh", '#!/bin/sh\ndate >> "$CLAUDE_PROJECT_DIR/marked"\n', 0o755)
    hook = {"type": "command", "command": f"{config}/hooks/mark.sh"}
    plugin = config / "plugins/cache/lint"
    write(plugin / ".claude-plugin/plugin.json", {"name": "lint", "mcpServers": {"s": {"env": {"K": PLANTED}}}})
    write(plugin / "skills/tidy/SKILL.md", "---\nname: tidy\ndescription: Tidy as a BEAVER\n---\nTidy up.\n")
    write(config / "plugins/installed_plugins.json", {"plugins": {"lint@mine": [{"installPath": str(plugin)}]}})
    settings = {
        "env": {"K": PLANTED},
        "apiKeyHelper": f"echo {PLANTED}",
        "enabledPlugins": {"lint@mine": True},
        "permissions": {"defaultMode": "plan", "disableBypassPermissionsMode": "disable"},
        "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [hook]}]},
    }
    write(config / "settings.json", settings)


def secret(home: Path) -> None:
    """A secret in every other place that Claude Code has."""
    config = home / ".claude"
    for name in (".credentials.json", "history.jsonl", "settings.local.json", "mcp-needs-auth-cache.json"):
        write(config / name, {"secret": PLANTED})
    for name in ("projects/a/b.jsonl", "tasks/x/1.json", "backups/c", "shell-snapshots/s.sh", "session-env/e", "odd"):
        write(config / name, PLANTED)
    write(config / "skills/review/.env", f"TOKEN={PLANTED}\n")
    write(config / "skills/review/upload.py", f"KEY = '{SHAPED}'\n")
    servers = {
        "env": {"command": "x", "env": {"K": PLANTED}},
        "headers": {"type": "http", "url": "https://x", "headers": {"Authorization": PLANTED}},
        "parhelia": {"command": "parhelia-mcp"},
    }
    other = {"/elsewhere": {"history": [PLANTED], "mcpServers": {"o": {"env": {"K": PLANTED}}}}}
    write(home / ".claude.json", {"primaryApiKey": PLANTED, "mcpServers": servers, "projects": other})


def at(api: FakeApi) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": api.url}


def told(api: FakeApi) -> str:
    return "".join(request.raw.decode() for request in api.messages)


def test_instructions_skills_agents_commands_hooks_plugins_and_servers_act_in_a_session(front: Front) -> None:
    useful(front.user_home)
    secret(front.user_home)
    shutil.copy(Path(__file__).with_name("server.py"), front.cwd / "notes.py")
    write(front.cwd / ".mcp.json", {"mcpServers": {"notes": {"command": "/usr/bin/python3", "args": ["notes.py"]}}})
    script = [use("Skill", skill="review"), use("Bash", command="git status"), say("It is done.")]
    with fake_api(script) as api:
        task = front.json("submit", "/shout hello", env=at(api))["task_id"]
        ended = front.until(task, "completed", "failed", "waiting", within=120)
        assert ended["state"] == "completed", ended
        sent = told(api)
    for animal in ("FALCON", "OTTER", "HERON", "WALRUS", "BEAVER"):
        assert animal in sent, animal
    assert "WALRUS: hello" in sent
    assert "mcp__notes__submit" in sent
    assert "mcp__parhelia" not in sent
    assert front.git("show", f"parhelia/{task}:marked")

    log = front.text("logs", task)
    assert "hook: 1 hook of yours and the project's, all valid" in log
    assert "config: of your Claude Code configuration" in log
    assert "plugins: 1, MCP servers: 1" in log
    receipt = front.json("config", "diff", task)
    assert receipt == front.json("config", "diff")
    assert "~/.claude/CLAUDE.md" in [item["name"] for item in receipt["rewritten"]]
    assert {"name": "~/.claude/.credentials.json", "note": "credentials"} in receipt["dropped"]

    brought = front.root / "brought"
    front.run("resume", task, "--target", str(brought))
    assert (brought / "marked").exists()
    kept = [path for root in (front.home, brought) for path in root.rglob("*") if path.is_file()]
    assert len(kept) > 20
    assert [path for path in kept if b"PLANTED" in path.read_bytes()] == []
    assert "PLANTED" not in sent


def test_each_session_gets_what_there_is_when_it_starts(front: Front) -> None:
    page = front.user_home / ".claude/CLAUDE.md"
    write(page, "Write like a FALCON.\n")
    write(front.user_home / ".claude/agents/tester.md", "---\nname: tester\ndescription: Tests like a HERON\n---\n")
    with fake_api([say("One.")]) as api:
        task = front.json("submit", "begin", env=at(api))["task_id"]
        front.until(task, "completed", within=120)
        assert "FALCON" in told(api)
    write(page, "Write like a LYNX.\n")
    (front.user_home / ".claude/agents/tester.md").unlink()
    with fake_api([say("Two.")]) as api:
        front.json("submit", "--to", task, "go on", env=at(api))
        front.until(task, "completed", within=120)
        assert "LYNX" in told(api)
        assert "FALCON" not in told(api)
        assert not (front.home / "tasks" / task / "home/.claude/agents").exists()
        assert "go on" in told(api)
    write(page, "Write like a MOOSE.\n")
    checkpoint = front.show(task)["checkpoints"][0]["checkpoint_id"]
    with fake_api([say("Three.")]) as api:
        fork = front.json("submit", "--from-checkpoint", checkpoint, "branch off", env=at(api))["task_id"]
        front.until(fork, "completed", within=120)
        assert "MOOSE" in told(api)
    with fake_api([say("Four.")]) as api:
        front.run("recover", task, "--action", "restart", "--yes", env=at(api))
        front.until(task, "completed", within=120)
        assert "MOOSE" in told(api)
        assert "LYNX" not in told(api)
    first, second = (front.json("config", "diff", f"{task}.{number}")["carried"] for number in (1, 2))
    assert (len(first), len(second)) == (2, 1)


def test_a_hook_that_will_not_act_is_named_in_the_log(front: Front) -> None:
    broken = {"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": ["~/.claude/hooks/mine.py"]}]}}
    write(front.cwd / ".claude/settings.json", broken)
    write(front.user_home / ".claude/settings.json", "{ broken")
    with fake_api([say("Done.")]) as api:
        task = front.json("submit", "begin", env=at(api))["task_id"]
        front.until(task, "completed", within=120)
    lines = [line["text"] for line in front.json("logs", task, "--grep", "hook:")["lines"]]
    assert any("error[HK110]" in line and "settings.json#/hooks/PreToolUse/0/hooks/0" in line for line in lines), lines
    assert not any("all valid" in line for line in lines)
    dropped = {item["name"]: item["note"] for item in front.json("config", "diff", task)["dropped"]}
    assert "not a JSON object" in dropped["~/.claude/settings.json"]


def test_a_command_is_given_no_configuration(front: Front) -> None:
    useful(front.user_home)
    task = front.submit("true")
    front.until(task, "completed")
    assert front.error("config", "diff", task, code=3)["code"] == "no-receipt"
    assert not (front.home / "tasks" / task / "home/.claude").exists()
