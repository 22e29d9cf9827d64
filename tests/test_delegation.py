"""A session whose agent hands work on, with the real Claude Code: only when asked, one level deep, out of its own money."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from threading import Event

import pytest

from parhelia_mcp import budget, task_limit
from parhelia_mcp.context import Context
from tests.budget.proof import prove
from tests.claude_client import claude_path
from tests.fake_api import fake_api, say, use
from tests.fake_api.replies import Reply, Request
from tests.front import Front, eventually

TOOL = b"mcp__parhelia__submit"
ASKED = {"PARHELIA_AGENT_DELEGATE": "1"}
DIES = {"PARHELIA_FAILPOINT": "delegation.started@1:kill9"}  # the controller, between the task and the answer


@pytest.fixture
def front(users: Callable[..., Front]) -> Front:
    made = users(PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY="sk-ant-a-test")
    made.repository()
    return made


def by_parent(request: Request) -> bool:
    return b"The LION" in request.raw and bool(request.body.get("tools"))


def by_child(request: Request) -> bool:
    return b"The LION" not in request.raw and bool(request.body.get("tools"))


def asking(reply: Reply) -> Reply:
    """The reply with the id of the task that the conversation names."""

    def when(request: Request) -> bool:
        if found := re.search(rb"task_id\W+(task-\w{8})", request.raw):
            reply.blocks[0]["input"]["task_id"] = found[1].decode()
        return by_parent(request)

    return reply.but(when=when)


def results(raw: bytes) -> list[str]:
    """What the tools answered, as a request tells the model."""
    parts = [part for message in json.loads(raw)["messages"] for part in message["content"] if isinstance(part, dict)]
    return [json.dumps(part.get("content")) for part in parts if part["type"] == "tool_result"]


def test_an_agent_hands_work_on_out_of_its_own_money_once_and_one_level_deep(front: Front) -> None:
    script = [
        use("Bash", command="git mv a.txt given.txt").but(when=by_parent),
        use("mcp__parhelia__submit", prompt="Too dear.", max_usd=9).but(when=by_parent),
        use("mcp__parhelia__submit", prompt="The CUB: go on.", max_usd=2).but(when=by_parent),
        asking(use("mcp__parhelia__status", task_id="", wait_s=600)),
        say("All is done.").but(when=by_parent),
        use("Bash", command="git mv given.txt made.txt").but(when=by_child),
        say("The cub is done.").but(when=by_child),
    ]
    with fake_api(script) as api:
        env = {"ANTHROPIC_BASE_URL": api.url}
        task = front.json("submit", "The LION: prepare, hand on, wait.", env={**ASKED, **DIES, **env})["task_id"]
        cub = eventually(
            lambda: next((row for row in front.json("list", env=env)["tasks"] if row["parent"]), None), what="the child"
        )["task_id"]
        ended = front.until(task, "completed", "failed", "waiting")
        asked, served = ([seen for seen in api.messages if which(seen)] for which in (by_parent, by_child))
    assert ended["state"] == "completed", ended
    shown = front.show(cub)
    assert (shown["parent"], shown["state"], ended["parent"]) == (f"{task}.1", "completed", None)
    assert len(front.json("list")["tasks"]) == 2, "the controller was killed in between, and nothing started twice"

    assert all(TOOL in seen.raw for seen in asked)
    assert not any(TOOL in seen.raw for seen in served)
    _, refused, started, told = results(asked[-1].raw)
    assert "$9 was asked for and $4.99" in refused and "is left for tokens here. Nothing was started." in refused
    assert cub in started
    for fact in ("completed", f"parhelia/{cub}", "The cub is done."):
        assert fact in told, told
    assert front.git("ls-tree", "--name-only", f"parhelia/{cub}") == "made.txt\n"
    assert front.git("ls-tree", "--name-only", f"parhelia/{task}") == "given.txt\n"

    assert prove(front.home / "parhelia.db")[1] == 0
    ctx = Context(front.env, front.cwd)
    assert budget.audit(ctx) == []
    spent = round(ended["spent_usd"] * 1e6)
    assert task_limit.left(ctx, ctx.store.newest(task)) == 5_000_000 - 2_000_000 - spent
    released = ctx.store.query(
        "SELECT micro_usd FROM ledger WHERE session = ? AND key = ?", f"{task}.1", f"handed on:{cub}"
    )
    assert [row["micro_usd"] for row in released] == [2_000_000]

    carried = {item["name"]: item["note"] for item in front.json("config", "diff", task)["carried"]}
    assert carried["MCP server parhelia in the session"].endswith(
        "1 level deep; what it hands on comes out of its $5.00"
    )
    assert "MCP server parhelia in the session" not in str(front.json("config", "diff", cub)["carried"])
    front.run("resume", cub, env=ASKED)
    assert (ctx.store.newest(cub).spec or {})["agent"]["delegate"] == 0, "a resumed child is as deep as it was"


def test_what_is_refused_outside_gives_the_money_back_and_a_killed_parent_leaves_its_tasks(front: Front) -> None:
    lowered, raised = Event(), Event()
    ask = use("Bash", command="sh -c 'echo two > a.txt'")  # which waits for a person
    hand_on = use("mcp__parhelia__submit", prompt="The CUB: go on.", max_usd=12, idempotency_key="cub")
    script = [
        hand_on.but(when=by_parent, gate=lowered),
        hand_on.but(when=by_parent, gate=raised),
        ask.but(when=by_parent),
        ask.but(when=by_child),
    ]
    with fake_api(script) as api:
        env = {"ANTHROPIC_BASE_URL": api.url}
        task = front.json("submit", "The LION.", "--max-usd", "20", env={**ASKED, **env})["task_id"]
        front.until(task, "running")
        front.run("budget", "set", "1")
        lowered.set()
        asked = eventually(lambda: [seen for seen in api.messages if by_parent(seen)][1:], what="the refusal")
        assert "is left under the ceiling of $1.00" in results(asked[0].raw)[0]
        assert sum(prove(front.home / "parhelia.db")) == 20_000_000
        front.run("budget", "set", "25")
        raised.set()
        front.until(task, "waiting")
        assert sum(prove(front.home / "parhelia.db")) == 20_000_000
        (cub,) = (row["task_id"] for row in front.json("list")["tasks"] if row["parent"])
        assert f"what it handed on goes on: {cub}" in front.text("session", "kill", task)
        front.until(cub, "waiting")
        front.run("session", "kill", cub)
    assert prove(front.home / "parhelia.db")[1] == 0


def test_only_the_user_s_own_file_lets_sessions_hand_work_on(front: Front) -> None:
    settings = front.cwd / "parhelia.toml"
    settings.write_text("[agent]\ndelegate = 1\n")
    assert "not a project's to set" in front.error("submit", "go", code=2)["message"]
    assert "MCP server parhelia in the session" not in front.text("config", "diff", code=None)
    settings.unlink()
    own = front.user_home / ".config/parhelia/parhelia.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[agent]\ndelegate = 2\n")
    assert "2 levels deep; what it hands on comes out of its $5.00" in front.text("config", "diff")
