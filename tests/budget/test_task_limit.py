"""A task's own limit, over all of its sessions: who goes past it, and what is said before it is met."""

from __future__ import annotations

from pathlib import Path

from mcp import Client

from parhelia_mcp.context import Context
from parhelia_mcp.mcp_server.server import build
from tests.budget.proof import prove
from tests.front import Front
from tests.mcp.talk import refused, talk

PRICED = {"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "3600"}  # a dollar a second: 36 for the time asked for below
AGENT = {**PRICED, "CLAUDECODE": "1"}


def test_the_sessions_of_a_task_share_its_limit_and_only_a_person_goes_past_it(front: Front, repo: Path) -> None:
    front.run("budget", "set", "500")
    wanted = ("--timeout-hours", "0.01", "--max-usd", "37", "--", "sh", "-c", "echo x >> a; sleep 1.2")
    front.run("run", *wanted, env=PRICED)
    task = front.json("list")["tasks"][0]["task_id"]
    spent = front.show(task)["spent_usd"]
    assert spent > 1

    error = front.error("resume", task, code=4, env=AGENT)
    assert error["code"] == "over-task-limit"
    assert f"has spent ${spent:.2f} and ${37 - spent:.2f} of its limit of $37.00 is left" in error["message"]
    assert error["hint"] == f"ask the person to type: parhelia resume {task}"
    more = front.error("resume", task, "--max-usd", "45", code=4, env=AGENT)
    assert more["hint"] == f"ask the person to type: parhelia resume {task} --max-usd 45"

    said = talk(build(Context({**front.env, **PRICED}, front.cwd)), lambda client: _both_ways(client, task))
    for text in said:
        assert "[over-task-limit]" in text
        assert f"ask the person to type: parhelia resume {task}" in text

    again = front.json("resume", task, env=PRICED)
    assert "this session may spend another $37.00" in again["note"]
    assert again["reserved_usd"] == 36
    front.until(task, "completed")
    front.run("resume", task, "--max-usd", "80", env=PRICED)
    front.until(task, "completed")
    front.run("resume", task, env=AGENT)
    assert front.show(task)["session_id"] == f"{task}.4", "80 dollars leave enough for one more"
    front.until(task, "completed")
    assert prove(front.home / "parhelia.db")[1] == 0


async def _both_ways(client: Client, task: str) -> list[str]:
    resumed = await refused(client, "recover", id=task, action="resume")
    return [resumed, await refused(client, "submit", prompt="go on", to=task)]


def test_a_raised_limit_of_the_settings_counts_for_tasks_that_follow_it(front: Front, repo: Path) -> None:
    front.run("budget", "set", "500")
    limit = {"PARHELIA_BUDGET_PER_TASK_USD": "37"}
    front.run("run", "--timeout-hours", "0.01", "--", "sh", "-c", "echo x >> a; sleep 1.2", env={**PRICED, **limit})
    task = front.json("list")["tasks"][0]["task_id"]
    assert front.error("resume", task, code=4, env={**AGENT, **limit})["code"] == "over-task-limit"
    front.run("resume", task, env={**AGENT, "PARHELIA_BUDGET_PER_TASK_USD": "50"})
    front.until(task, "completed")


def test_a_cap_below_a_first_request_is_said_before_it_is_met(front: Front) -> None:
    dry = front.json("submit", "x", "--model", "claude-opus-5", "--max-usd", "0.5", "--dry-run")
    assert "$0.50 is left for tokens" in dry["note"]
    assert "up to $0.82 with claude-opus-5" in dry["note"]
    text = " ".join(front.text("submit", "x", "--max-usd", "0.5", "--dry-run").split())
    assert "may end over budget before it has done anything" in text
    assert front.json("submit", "x", "--model", "claude-haiku-4-5", "--max-usd", "0.5", "--dry-run")["note"] is None
    assert front.json("submit", "x", "--dry-run")["note"] is None
    cheap = {"PARHELIA_PRICES_MODELS": '{"claude-opus-5" = {input = 0.1, output = 0.5}}'}
    assert (
        front.json("submit", "x", "--model", "claude-opus-5", "--max-usd", "0.5", "--dry-run", env=cheap)["note"]
        is None
    )
