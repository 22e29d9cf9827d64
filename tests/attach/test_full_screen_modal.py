"""The full-screen client on Modal, where the agent is a user of its own and nothing of the runner's is open to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.attach.room import House, Person
from tests.attach.test_full_screen import COLOUR, KEY, waiting_for
from tests.claude_client import claude_path
from tests.fake_api import FakeApi, Reply, fake_api, say, use
from tests.modal_loopback.client import Loopback
from tests.providers.test_modal_agent import agent_of


@contextmanager
def talking(folder: Path, *script: Reply) -> Iterator[tuple[House, FakeApi, str]]:
    """A user whose agents work on Modal and talk to a scripted API, and who the agents are there."""
    with fake_api(list(script)) as api:
        modal = Loopback(folder / "modal")
        modal.egress(urlsplit(api.url).port)
        sizes = {"PARHELIA_PROVIDER": "modal", "PARHELIA_MODAL_CPU": "1", "PARHELIA_MODAL_MEMORY": "1"}
        agent = {"PARHELIA_AGENT_COMMAND": str(claude_path()), "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": KEY}
        house = House(folder, **modal.env, **sizes, **agent)
        house.repository()
        try:
            yield house, api, agent_of(modal)
        finally:
            house.close()
            modal.stop()


def test_a_full_screen_session_on_modal_is_asked_and_left(tmp_path: Path, person: Callable[[], Person]) -> None:
    script = [
        use("Bash", command="id -un > who.txt; git add -A; git commit -qm Done"),
        use("AskUserQuestion", questions=[COLOUR]),
        say("It is blue."),
    ]
    with talking(tmp_path, *script) as (house, api, agent):
        task = house.json("submit", "--interactive", "Ask me.")["task_id"]
        waiting_for(house, task, "Which colour? (1 red, 2 blue)")
        someone = person()
        someone.sit(house, "attach", task)
        someone.see("Which colour?", f"{task}.1 | waiting")
        house.run("send", task, "blue")
        someone.see("It is blue.")
        waiting_for(house, task, "your next message")
        someone.type("/exit")
        done = house.until(task, "completed", "failed", within=120)
        assert (done["state"], done["reason"]) == ("completed", "agent-exit"), done
        assert house.git("show", f"parhelia/{task}:who.txt").split() == [agent]
        assert '\\"Which colour?\\"=\\"blue\\"' in json.dumps(api.messages[-1].body["messages"])
        assert {seen.token for seen in api.messages} == {KEY}


def test_a_conversation_on_modal_is_taken_over_and_handed_back(tmp_path: Path, person: Callable[[], Person]) -> None:
    script = [use("Bash", command="id -un > who.txt; sleep 60"), say("The person is heard."), say("All is done.")]
    with talking(tmp_path, *script) as (house, api, agent):
        task = house.json("submit", "go")["task_id"]
        house.until(task, "running", within=120)
        someone = person()
        someone.sit(house, "attach", task)
        someone.take_over("sleep 60")
        someone.type("Do it another way.")
        someone.see("The person is heard.")
        someone.type("/exit")
        done = house.until(task, "completed", "failed", within=120)
        assert (done["state"], done["reason"]) == ("completed", "agent-exit"), done
        assert house.git("show", f"parhelia/{task}:who.txt").split() == [agent]
        history = json.dumps(api.messages[-1].body["messages"])
        assert all(words in history for words in ("Do it another way.", "handed it back"))
        assert "All is done." in house.text("logs", task)
