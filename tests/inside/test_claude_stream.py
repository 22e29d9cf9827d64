"""What Claude Code prints, as events and as an end; what it asks, as words and as a reply."""

from __future__ import annotations

import json

import pytest

from parhelia_mcp.errors import Usage
from parhelia_mcp.inside import stream, wire
from parhelia_mcp.inside.ask import Ask
from parhelia_mcp.inside.claude_home import environment, taken_in, write
from parhelia_mcp.model import Reason

DONE = {"type": "result", "subtype": "success", "is_error": False, "terminal_reason": "completed", "result": "yes"}
COLOURS = [{"label": "red"}, {"label": "Dark blue"}]


def said(*events: dict) -> list[tuple]:
    talk = stream.Conversation()
    return [(entry.kind, entry.text) for event in events for entry in talk.take(event)]


def assistant(*blocks: dict, model: str = "claude-opus-4-8") -> dict:
    return {"type": "assistant", "message": {"model": model, "content": list(blocks)}}


@pytest.mark.parametrize(
    ("changes", "code", "complaint", "detail"),
    [
        ({"is_error": True, "api_error_status": 402, "result": "API Error: 402 spent"}, 1, "", "API Error: 402 spent"),
        ({"is_error": True, "result": "", "errors": ["No conversation found"]}, 1, "", "No conversation found"),
        ({"is_error": True, "result": None, "subtype": "error_max_turns"}, 1, "", "error_max_turns"),
        ({"terminal_reason": "hook_stopped"}, 0, "", "Claude Code stopped: hook_stopped"),
        ({"terminal_reason": "tool_deferred"}, 0, "", "Claude Code stopped: tool_deferred"),
        ({}, 1, "it broke", "Claude Code exited with 1; it broke"),
        ({"is_error": True, "terminal_reason": "aborted_streaming", "result": ""}, 0, "", "success"),
    ],
)
def test_only_a_finished_turn_without_error_and_with_code_0_is_a_success(changes, code, complaint, detail):
    end = stream.judge(DONE | changes, code, complaint)
    assert (end.ok, end.exit_code, end.reason, end.detail) == (False, code, Reason.AGENT_ERROR, detail)
    assert stream.judge(DONE, 0, complaint).ok


def test_without_a_result_it_was_ended_before_it_was_done():
    end = stream.judge(None, -9, "")
    assert (end.ok, end.detail) == (False, "Claude Code was ended by signal 9 before its work was done")
    taken = stream.judge(None, 1, "Session ID x is already in use.")
    assert taken.detail == "Claude Code exited with 1 before its work was done; Session ID x is already in use."


def test_a_tool_is_named_with_its_telling_argument_and_its_result():
    calls = assistant(
        {"type": "tool_use", "id": "1", "name": "Bash", "input": {"description": "see", "command": "ls\n-l"}},
        {"type": "tool_use", "id": "2", "name": "Task", "input": {"depth": 2}},
    )
    results = [
        {"type": "tool_result", "tool_use_id": "1", "is_error": True, "content": "no such file"},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "fine"}]},
        {"type": "tool_result", "tool_use_id": "3", "content": "of a call that nobody saw"},
    ]
    assert said(calls, {"type": "user", "message": {"content": results}}) == [
        ("tool", "Bash ls -l"),
        ("tool", 'Task {"depth": 2}'),
        ("tool", "Bash ls -l: error"),
        ("tool", 'Task {"depth": 2}: ok'),
    ]


def test_texts_are_one_bounded_line_each_and_the_clients_own_are_warnings():
    long = {"type": "text", "text": "word\n" * 1000}
    (kind, text), warning = said(
        assistant(long), assistant({"type": "text", "text": "API Error: 500"}, model="<synthetic>")
    )
    assert (kind, len(text), text[:9]) == ("message", stream.LINE, "word word")
    assert warning == ("warning", "API Error: 500")


def test_a_retry_of_the_api_is_a_warning_with_its_number():
    retry = {"type": "system", "subtype": "api_retry", "attempt": 3, "max_retries": 10, "error_status": 529}
    assert said(retry) == [("warning", "the API failed (529); trying again, 3 of 10")]


def test_it_is_idle_only_between_turns_without_background_work():
    talk = stream.Conversation()
    seen = []
    for event in (
        {"type": "system", "subtype": "init", "claude_code_version": "2.1"},
        {"type": "system", "subtype": "task_started", "task_id": "b"},
        DONE,
        {"type": "system", "subtype": "task_notification", "task_id": "b"},
        {"type": "system", "subtype": "init", "claude_code_version": "2.1"},
        DONE,
    ):
        talk.take(event)
        seen.append((talk.idle, talk.waking))
    no = (False, False)
    assert seen == [no, no, no, (True, True), no, (True, False)]
    assert talk.turns == 2


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "assistant"},
        {"type": "assistant", "message": {"content": ["text", {"type": "text"}]}},
        {"type": "user", "message": {"content": [{"type": "tool_result"}]}},
        {"type": "system", "subtype": "unheard-of"},
    ],
)
def test_a_shape_that_is_not_known_means_nothing(event):
    assert said(event) == []


@pytest.mark.parametrize(
    ("text", "several", "answer"),
    [
        ("2", False, "Dark blue"),
        ("dark BLUE", False, "Dark blue"),
        (" neither, I think ", False, "neither, I think"),
        ("3", False, "3"),
        ("1, dark blue", True, "red, Dark blue"),
        ("1, green", True, "1, green"),
    ],
)
def test_an_answer_is_a_number_an_option_or_any_text(text, several, answer):
    question = {"question": "Which?", "options": COLOURS, "multiSelect": several}
    reply = Ask("r", "AskUserQuestion", {"questions": [question]}).reply(True, text)
    assert reply == {"behavior": "allow", "updatedInput": {"questions": [question], "answers": {"Which?": answer}}}


def test_several_questions_take_a_line_each():
    asked = Ask("r", "AskUserQuestion", {"questions": [{"question": "A?"}, {"question": "B?", "options": COLOURS}]})
    assert asked.reply(True, "yes\n1\n")["updatedInput"]["answers"] == {"A?": "yes", "B?": "red"}
    with pytest.raises(Usage, match=r"A\? B\? \(1 red, 2 Dark blue\)"):
        asked.reply(True, "yes")


def test_a_refusal_always_says_why():
    asked = Ask("r", "Bash", {"command": "rm -rf build"})
    assert asked.summary == "permission for Bash rm -rf build"
    assert asked.reply(False, None) == {"behavior": "deny", "message": "The user said no."}
    with pytest.raises(Usage, match="allow or deny"):
        asked.reply(True, "only if the tests pass")
    assert asked.reply(True, None) == {"behavior": "allow", "updatedInput": {"command": "rm -rf build"}}


def test_messages_that_a_turn_took_in_are_found_in_the_conversation(tmp_path):
    ours, quoted = "5d1f0c6e-8f4e-4a57-9f53-0a6f6e0b1c11", "00000000-8f4e-4a57-9f53-0a6f6e0b1c11"
    stored = tmp_path / "x.jsonl"
    text = '{"type":"attachment","attachment":{"type":"queued_command","source_uuid":"%s"}}\n{"text":"\\"source_uuid\\":\\"%s\\""}\n'
    stored.write_text(text % (ours, quoted))
    assert taken_in(stored) == {ours}
    assert taken_in(None) == set()


@pytest.mark.parametrize("before", [None, '{"half of a fi', '{"userID": "u", "projects": {"/other": {"x": 1}}}'])
def test_the_home_answers_the_first_run_questions_and_keeps_what_it_had(tmp_path, before):
    first_run = tmp_path / ".claude.json"
    if before:
        first_run.write_text(before)
    write(tmp_path, tmp_path / "workspace", {}, "default")
    known = json.loads(first_run.read_text())
    assert known["hasCompletedOnboarding"] is True
    assert known["projects"][str(tmp_path / "workspace")] == {"hasTrustDialogAccepted": True}
    assert ("userID" in known, "/other" in known["projects"]) == (before is not None and "userID" in before,) * 2


def test_an_oauth_upstream_gets_the_token_where_the_client_adds_its_headers():
    env = environment({"NO_PROXY": "internal.example"}, 81, "T", "oauth", "default")
    assert (env["CLAUDE_CODE_OAUTH_TOKEN"], env["ANTHROPIC_BASE_URL"]) == ("T", "http://127.0.0.1:81")
    assert "ANTHROPIC_AUTH_TOKEN" not in env
    assert env["NO_PROXY"] == "internal.example,127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("event", "key"),
    [
        ({"type": "user", "uuid": "u", "isReplay": True}, "u"),
        ({"type": "user", "uuid": "u"}, None),
        ({"type": "control_response", "response": {"request_id": "r"}}, "r"),
        ({"type": "result", "uuid": "u"}, None),
    ],
)
def test_only_the_clients_receipts_are_proof(event, key):
    assert wire.acknowledged(event) == key
