"""The full-screen client of Claude Code in a session: from the start, and taken over from a headless one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parhelia_mcp import processes
from tests.attach.room import House, Person
from tests.claude_client import claude_path
from tests.fake_api import FakeApi, Reply, fail, fake_api, from_main, from_subagent, say, use
from tests.front import eventually

KEY = "sk-ant-the-real-key"
COLOUR = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": "red", "description": "warm"}, {"label": "blue", "description": "cold"}],
}


@contextmanager
def talking(folder: Path, *script: Reply) -> Iterator[tuple[House, FakeApi]]:
    """A user whose agents talk to a scripted API."""
    with fake_api(list(script)) as api:
        house = House(
            folder, PATH=f"{claude_path().parent}:/usr/bin:/bin", ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=api.url
        )
        house.repository()
        try:
            yield house, api
        finally:
            house.close()


def texts(house: House, task: str, kind: str) -> list[str]:
    path = house.home / "tasks" / task / "sessions" / "1" / "events.jsonl"
    return [event["text"] for event in map(json.loads, path.read_text().splitlines()) if event["kind"] == kind]


def writers(task: str) -> list[int]:
    """The clients that have the conversation open."""
    found = {}
    for pid in processes.members(f"{task}.1"):
        with suppress(OSError):  # it has ended
            if b"--settings" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return [pid for pid, parent in found.items() if parent not in found]  # not what a client is about to start


@contextmanager
def counted(task: str) -> Iterator[list[int]]:
    """How many clients had the conversation open at once, looked at all the time."""
    seen, over = [len(writers(task))], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            seen.append(len(writers(task)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def waiting_for(house: House, task: str, what: str) -> None:
    def look() -> bool:
        shown = house.show(task)
        assert shown["state"] not in ("completed", "failed", "killed"), shown
        return shown["state"] == "waiting" and what in shown["waiting_for"]

    eventually(look, what=f"{task} to wait for {what}")


def test_a_full_screen_session_is_asked_answered_written_to_and_left(
    tmp_path: Path, person: Callable[[], Person]
) -> None:
    script = [
        use("Bash", command="sh -c 'echo two > a.txt'"),
        use("AskUserQuestion", questions=[COLOUR]),
        say("The file is written."),
        say("It is a message."),
    ]
    with talking(tmp_path, *script) as (house, api):
        task = house.json("submit", "--interactive", "Change the file,\nplease.")["task_id"]
        waiting_for(house, task, "echo two")
        refused = house.error("send", task, "never mind", code=4)
        assert "would answer" in refused["message"]
        house.run("send", task, "allow")
        waiting_for(house, task, "Which colour? (1 red, 2 blue)")
        house.run("send", task, "2")
        waiting_for(house, task, "your next message")
        assert '\\"Which colour?\\"=\\"blue\\"' in json.dumps(api.messages[-1].body["messages"])
        house.run("send", task, "/exit is what I say\x1b[201~ and do not mean")
        waiting_for(house, task, "your next message")
        assert "/exit is what I say and do not mean" in json.dumps(api.messages[-1].body["messages"][-1])
        someone = person()
        someone.sit(house, "attach", task)
        someone.see("It is a message.", f"{task}.1 | waiting")
        asked = len(api.messages)
        someone.tmux("send-keys", "-l", "half a thou")
        someone.see("half a thou")
        refused = house.error("send", task, "and this", code=4)
        assert (refused["code"], refused["hint"]) == ("typing-begun", f"parhelia attach {task}")
        assert "'half a thou'" in refused["message"] and "Nothing was delivered" in refused["message"]
        someone.tmux("send-keys", "-l", "ght")
        someone.see("half a thought")
        assert len(api.messages) == asked
        someone.tmux("send-keys", "C-c")
        eventually(lambda: "half a thought" not in someone.screen, what="an empty input box")
        someone.type("/exit")
        done = house.until(task, "completed", "failed")
    assert (done["state"], done["reason"]) == ("completed", "agent-exit")
    assert {seen.token for seen in api.messages} == {KEY}
    assert done["spent_usd"] > 0
    assert texts(house, task, "message") == ["The file is written.", "It is a message."]
    assert len(texts(house, task, "turn")) == 2 and texts(house, task, "message-delivered")
    assert house.git("show", f"parhelia/{task}:a.txt") == "two\n"


def test_a_person_answers_on_the_screen_and_the_session_goes_on(tmp_path: Path, person: Callable[[], Person]) -> None:
    """The client lets the hook wait on when somebody presses a key: the session must not."""
    first, second = (use("Bash", command=f"sh -c 'echo {name} > {name}.txt'") for name in ("one", "two"))
    inner = use("Agent", description="look", prompt="Look around.", subagent_type="general-purpose")
    script = [each.but(when=from_main) for each in (first, second, inner)]
    script += [each.but(when=from_subagent) for each in (use("Bash", command="git status"), say("It is clean."))]
    script += [say("Both are done.").but(when=from_main), fail(400, "invalid_request_error", "asleep")]
    with talking(tmp_path, *script) as (house, _):
        task = house.json("submit", "--interactive", "go")["task_id"]
        someone = person()
        someone.sit(house, "attach", task)
        for name in ("one", "two"):
            waiting_for(house, task, f"echo {name}")
            someone.see("Do you want to proceed?", f"echo {name}")
            someone.tmux("send-keys", "Enter")
        waiting_for(house, task, "your next message")
        someone.type("and now?")
        waiting_for(house, task, "asleep")
        house.run("session", "kill", task)
        done = house.until(task, "killed", "failed")
    assert done["checkpoints"]
    assert texts(house, task, "message") == ["It is clean.", "Both are done."]
    assert "Bash git status: ok" in texts(house, task, "tool")
    assert house.git("show", f"parhelia/{task}:two.txt") == "two\n"


def test_the_limit_for_tokens_ends_a_full_screen_session(tmp_path: Path) -> None:
    dear = use("Bash", command="git status").but(usage={"input_tokens": 10, "output_tokens": 30_000}, times=0)
    with talking(tmp_path, dear) as (house, _):
        task = house.json("submit", "--interactive", "--max-usd", "2", "go")["task_id"]
        done = house.until(task, "completed", "failed", within=120)
    assert (done["state"], done["reason"]) == ("failed", "over-budget")
    assert done["spent_usd"] <= 2


def test_a_conversation_is_taken_over_and_handed_back(tmp_path: Path, person: Callable[[], Person]) -> None:
    script = [
        use("Bash", command="git log -1 && sleep 60"),
        say("The person is heard."),
        say("All is done."),
    ]
    with talking(tmp_path, *script) as (house, api):
        task = house.json("submit", "go")["task_id"]
        someone = person()
        someone.sit(house, "attach", task)
        someone.take_over("sleep 60")
        assert len(writers(task)) == 1
        someone.type("Do it another way.")
        someone.see("The person is heard.")
        someone.type("/exit")
        done = house.until(task, "completed", "failed")
    assert (done["state"], done["reason"]) == ("completed", "agent-exit")
    history = json.dumps(api.messages[-1].body["messages"])
    told = [
        history.find(words) for words in ("sleep 60", "Do it another way.", "The person is heard.", "handed it back")
    ]
    assert -1 not in told and told == sorted(told)
    assert texts(house, task, "message")[-1] == "All is done."
    assert texts(house, task, "agent-started")[1] == "Claude Code is open full-screen"


def test_a_turn_is_finished_before_the_take_over_and_leaving_hands_back(
    tmp_path: Path, person: Callable[[], Person]
) -> None:
    end = threading.Event()
    script = [
        use("Bash", command="sh -c 'echo two > a.txt'"),
        say("The turn is whole.").but(gate=end),
        say("The person is heard."),
        say("All is done."),
    ]
    with talking(tmp_path, *script) as (house, api):
        house.env["PARHELIA_AGENT_PERMISSION_MODE"] = "bypassPermissions"
        task = house.json("submit", "go")["task_id"]
        someone = person()
        someone.sit(house, "attach", task)
        someone.see("echo two", "F12: take over")
        eventually(lambda: len(api.messages) == 2, what="the turn to be under way")
        with counted(task) as seen:
            someone.tmux("send-keys", "F12")
            someone.see("when this turn ends")
            someone.tmux("send-keys", "t")
            someone.see("opens full-screen when this turn ends")
            first = writers(task)
            end.set()
            someone.see("The turn is whole.", "/exit hands back", "bypass permissions on")
            assert first != writers(task)
            someone.type("And now this.")
            someone.see("The person is heard.")
            someone.leave()
            done = house.until(task, "completed", "failed", within=120)
        assert max(seen) == 1
    assert (done["state"], done["reason"]) == ("completed", "agent-exit")
    history = json.dumps(api.messages[-1].body["messages"])
    told = [history.find(words) for words in ("The turn is whole.", "And now this.", "is heard.", "handed it back")]
    assert -1 not in told and told == sorted(told)
    assert "Interrupted" not in history
    assert texts(house, task, "message") == ["The turn is whole.", "The person is heard.", "All is done."]
