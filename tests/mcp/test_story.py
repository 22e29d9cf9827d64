"""The real Claude Code on both sides: one delegates with our tools, the other does the work, a branch comes back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.claude_client import claude_path, client_env
from tests.fake_api import FakeApi, fake_api
from tests.front import SERVER, Front
from tests.mcp.model import Turns, played

BOSS, WORKER = "token-of-the-one-who-delegates", "key-of-the-one-who-works"
ENDED = ("completed", "failed", "killed", "lost")


def ask(front: Front, api: FakeApi, prompt: str) -> str:
    """What the delegating client says in the end, in the user's project, with our server as its only one."""
    environment = {
        **client_env(front.user_home, api.url, token=BOSS, trust=(front.cwd,)),
        "MCP_CONNECTION_NONBLOCKING": "0",
        "PARHELIA_HOME": str(front.home),
        "PARHELIA_AGENT_COMMAND": str(claude_path()),
        "PARHELIA_AGENT_CREDENTIAL": "env:WORKER_KEY",
        "WORKER_KEY": WORKER,
    }
    servers = front.root / "mcp.json"
    servers.write_text(json.dumps({"mcpServers": {"parhelia": {"command": SERVER, "args": []}}}))
    argv = [str(claude_path()), "-p", prompt, "--output-format", "json", "--mcp-config", str(servers)]
    argv += ["--strict-mcp-config", "--allowedTools", "mcp__parhelia,Bash(git:*)"]
    done = subprocess.run(
        argv, cwd=front.cwd, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return json.loads(done.stdout)["result"]


def tool(name: str, **arguments: object) -> tuple[str, dict]:
    return f"mcp__parhelia__{name}", arguments


def waited(task: str) -> Turns:
    """Wait for the end as the answers say it is done; allow what is asked on the way."""
    shown = json.loads((yield tool("status", id=task, wait_s=60)))
    while shown["state"] not in ENDED:
        if shown["state"] == "waiting":
            assert "By the agent" in shown["waiting_for"] or "two" in shown["waiting_for"], shown
            yield tool("submit", to=task, prompt="allow")
        shown = json.loads((yield tool("status", id=task, wait_s=60, since=shown["since"])))
    return json.dumps(shown)


def worker() -> Turns:
    yield "Bash", {"command": "echo two >> a.txt"}
    yield "Bash", {"command": "git commit -qam 'By the agent'"}
    return "I appended a line and committed it."


def delegating() -> Turns:
    given = json.loads((yield tool("submit", prompt="Append the line two to a.txt and commit it.")))
    assert 'status(id="' in given["next"]
    shown = json.loads((yield from waited(given["task_id"])))
    assert shown["state"] == "completed", shown
    assert shown["spent_usd"] > 0
    assert "I appended a line" in (yield tool("logs", id=given["task_id"], stream="output"))
    branch = shown["result"]["branch"]
    assert shown["next"] == f"git diff HEAD...{branch}"
    assert "+two" in (yield "Bash", {"command": f"git diff HEAD...{branch}"})
    return f"It is on {branch}."


def test_a_claude_delegates_to_a_claude_and_looks_at_the_branch(front: Front, repo: Path) -> None:
    (repo / "untracked.txt").write_text("mine\n")
    with fake_api([played(delegating(), BOSS), played(worker(), WORKER)]) as api:
        said = ask(front, api, "Hand this over.")
        assert {seen.token for seen in api.messages} == {BOSS, WORKER}, (said, api.messages[-1].raw[-1500:])
    branch = said.removeprefix("It is on ").rstrip(".")
    assert front.git("log", "--format=%s", f"main..{branch}").splitlines()[-1] == "By the agent"
    assert front.git("show", f"{branch}:a.txt") == "one\ntwo\n"
    assert (repo / "a.txt").read_text() == "one\n"
    assert front.git("status", "--porcelain") == "?? untracked.txt\n"


FAILS_ONCE = "[ -e half.txt ] && echo whole >> half.txt && exit; echo half > half.txt; echo the disk is gone; exit 3"


def careful() -> Turns:
    yield tool("budget", action="set", ceiling_usd=1)
    refusal = yield tool("submit", prompt="Something dear.")
    assert "No person answered. This needs up to $5.00 and $1.00 is left" in refusal
    assert "ask the person to type: parhelia budget set 5, or ask for less: max_usd=1.00" in refusal
    assert "raise-refused" in (yield tool("budget", action="set", ceiling_usd=50))
    given = json.loads((yield tool("submit", command=["sh", "-c", FAILS_ONCE])))
    task = given["task_id"]
    shown = json.loads((yield from waited(task)))
    assert (shown["state"], shown["exit_code"]) == ("failed", 3), shown
    assert "the disk is gone" in (yield tool("logs", id=task, grep="gone"))
    digest = json.loads((yield tool("status")))
    assert digest["decisions"][0]["next"] == shown["next"] == f'recover(id="{task}")'
    found = json.loads((yield tool("recover", id=task)))
    assert (found["did"], found["cause"], found["state"]) == ("looked", "agent-exit", "failed"), found
    assert "exit code 3" in found["what"], found
    assert ("state", "failed") in [(fact["name"], fact["value"]) for fact in found["evidence"]], found
    assert "the disk is gone" in (yield tool("logs", id=task, tail=50)), found["next"]
    assert found["plan"]["from_checkpoint"].startswith("cp-"), found
    done = json.loads((yield tool("recover", id=task, action="resume")))
    assert done["did"] == f"started {task}.2 from {found['plan']['from_checkpoint']}", done
    shown = json.loads((yield from waited(task)))
    assert (shown["state"], shown["session_id"]) == ("completed", f"{task}.2"), shown
    ref = shown["result"]["ref"]
    assert shown["next"] == f"git diff HEAD...{shown['result'].get('branch', ref)}", shown
    return (yield "Bash", {"command": f"git show {ref}:half.txt"})


def test_a_claude_meets_the_budget_and_brings_a_failed_session_back(front: Front, repo: Path) -> None:
    with fake_api([played(careful(), BOSS)]) as api:
        assert ask(front, api, "Run it.") == "half\nwhole"
    assert front.json("budget", "show")["ceiling_usd"] == 1
    assert front.git("status", "--porcelain") == ""
