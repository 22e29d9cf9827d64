"""A task that may run for longer than a sandbox can live goes on in the next, whoever is there to see it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from urllib.parse import urlsplit

import pytest

from tests.claude_client import claude_path
from tests.fake_api import fake_api, say
from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback
from tests.providers.test_modal_main_job import of

LIFE = {"PARHELIA_MODAL_SANDBOX_HOURS": "0.008", "PARHELIA_CHECKPOINT_INTERVAL_MINUTES": "0.05"}
COUNT = 'n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n; echo "life $n"; [ $n -ge 2 ] || sleep 300'
ASKED = ("--timeout-hours", "0.03", "--", "sh", "-c", COUNT)


def go_offline(front: Front) -> None:
    """Nobody drives the sessions of this user any more."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((front.home / "controller.lock").read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def fronts(server: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Front]]:
    """Users whose sandboxes live at the same time: it is the only thing that takes long here."""
    small = {"PARHELIA_PROVIDER": "modal", "PARHELIA_MODAL_CPU": "1", "PARHELIA_MODAL_MEMORY": "1"}
    root = tmp_path_factory.mktemp("lifetime")
    names = ("waiting", "away", "killing", "poor", "agent")
    made = {name: Front(root / name, **server.env, **small, **LIFE) for name in names}
    for front in made.values():
        front.repository()
    yield made
    for front in made.values():
        front.close()


@pytest.fixture(scope="module")
def waiting(fronts: dict[str, Front]) -> subprocess.Popen[bytes]:
    """Somebody who waits for the command."""
    return fronts["waiting"].start("run", *ASKED)


@pytest.fixture(scope="module")
def agent(fronts: dict[str, Front], server: Loopback) -> Iterator[tuple[str, Event]]:
    """The task of an agent that gets no answer before the event: its sandbox ends first."""
    answers = Event()
    with fake_api([say("Done.").but(gate=answers, times=0)]) as api:
        server.egress(urlsplit(api.url).port)
        keys = {"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": api.url}
        env = {**keys, "PARHELIA_AGENT_COMMAND": str(claude_path())}
        yield fronts["agent"].json("submit", "count", "--timeout-hours", "0.03", env=env)["task_id"], answers


@pytest.fixture(scope="module")
def tasks(
    fronts: dict[str, Front], server: Loopback, waiting: subprocess.Popen[bytes], agent: tuple[str, Event]
) -> dict[str, str]:
    """The tasks of those who went away while the first sandbox lived; it has ended."""

    def leave(name: str) -> str:
        task = json.loads(fronts[name].run("run", "-d", "--json", *ASKED).stdout)["task_id"]
        fronts[name].until(task, "running")
        go_offline(fronts[name])
        return task

    names = ("away", "killing", "poor")
    with ThreadPoolExecutor() as pool:
        found = dict(zip(names, pool.map(leave, names), strict=True))
    for task in found.values():
        eventually(lambda task=task: of(server, task) and not of(server, task, live=True), within=120, what="the end")
    return found


def test_an_agent_goes_on_with_its_configuration(
    fronts: dict[str, Front], tasks: dict[str, str], agent: tuple[str, Event]
) -> None:
    front, (task, answers) = fronts["agent"], agent
    eventually(lambda: len(lives(front, task)) > 1, what="the second life")
    answers.set()
    front.until(task, "completed", "failed")
    ends = [reason for _, reason in lives(front, task)]
    assert set(ends[:-1]) == {"lifetime"} and ends[-1] == "agent-exit", front.show(task)["detail"]
    assert front.json("config", "diff", f"{task}.2") == front.json("config", "diff", f"{task}.1")


def lives(front: Front, task: str) -> list[tuple[int, str]]:
    with contextlib.closing(sqlite3.connect(front.home / "parhelia.db")) as db:
        return db.execute("SELECT number, reason FROM sessions WHERE task = ? ORDER BY number", (task,)).fetchall()


def test_whoever_waits_sees_the_end_of_the_task_not_of_the_sandbox(
    fronts: dict[str, Front], waiting: subprocess.Popen[bytes], tasks: dict[str, str], server: Loopback
) -> None:
    out, error = waiting.communicate(timeout=60)
    assert (out, waiting.returncode) == (b"life 1\nlife 2\n", 0), error
    front = fronts["waiting"]
    task = front.json("list")["tasks"][0]["task_id"]
    assert lives(front, task) == [(1, "lifetime"), (2, "agent-exit")]
    assert front.git("show", f"refs/parhelia/{task}/2:n") == "2\n"
    money = front.json("budget", "show")
    assert money["reserved_usd"] == 0
    assert 0 < money["spent_usd"] <= money["ceiling_usd"]
    assert of(server, task, live=True) == []


def test_any_later_command_goes_on_where_nobody_was_there(
    fronts: dict[str, Front], tasks: dict[str, str], server: Loopback
) -> None:
    front, task = fronts["away"], tasks["away"]
    front.run("status", code=None)
    front.until(task, "completed", within=120)
    assert lives(front, task) == [(1, "lifetime"), (2, "agent-exit")]
    assert len(of(server, task)) == 2


def test_a_kill_in_between_is_the_end(fronts: dict[str, Front], tasks: dict[str, str], server: Loopback) -> None:
    front, task = fronts["killing"], tasks["killing"]
    front.run("session", "kill", task)
    front.run("status", code=None)
    assert front.show(task)["reserved_usd"] == 0
    assert len(of(server, task)) == 1
    assert [number for number, _ in lives(front, task)] == [1]


def test_what_the_budget_does_not_allow_is_not_begun_and_says_so(
    fronts: dict[str, Front], tasks: dict[str, str], server: Loopback
) -> None:
    front, task = fronts["poor"], tasks["poor"]
    front.run("budget", "set", "0")
    shown = eventually(lambda: "recover" in ((it := front.show(task))["detail"] or "") and it, what="the refusal")
    assert (shown["reason"], shown["reserved_usd"]) == ("lifetime", 0)
    assert len(of(server, task)) == 1
