"""The control sockets: one line each way, whatever comes in."""

from __future__ import annotations

import json
import os
import socket

import pytest

from parhelia_mcp.errors import Unreachable
from tests.inside.session import Session, until


@pytest.fixture
def running(session: Session) -> Session:
    session.start("sh", "-c", "echo ready; sleep 300")
    session.wait_output(b"ready")
    return session


def _raw(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while part := line.recv(65536):
            answer += part
        return answer


def test_status_is_the_state(running: Session) -> None:
    answer = running.op("status")
    assert (answer["id"], answer["ok"]) == (7, True)
    assert answer["result"]["phase"] == "running"
    assert answer["result"]["agent"]["pid"] > 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nonsense\n", "bad-request"),
        (b"[1]\n", "bad-request"),
        (b'{"id": 1}\n', "bad-request"),
        (b'{"id": 1, "op": "explode"}\n', "unknown-op"),
        (b'{"id": 1, "op": "send", "args": {}}\n', "bad-request"),
        (b'{"id": 1, "op": "stop", "args": {"state": "asleep"}}\n', "bad-request"),
        (b'{"id": 1, "op": "send", "args": {"text": "hi", "id": "a"}}\n', "not-an-agent"),
        (b'{"id": 1, "op": "answer", "args": {"allow": true}}\n', "not-waiting"),
    ],
)
def test_what_cannot_be_done_is_answered_with_its_error(running: Session, line: bytes, code: str) -> None:
    answer = json.loads(_raw(running.state()["control"], line))
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert running.op("status")["ok"]


def test_several_requests_on_one_line_of_connection_and_a_torn_one(running: Session) -> None:
    ask = b'{"id": 1, "op": "status"}\n'
    assert _raw(running.state()["control"], ask + ask + b'{"id": 2').count(b'"ok": true') == 2
    assert running.op("status")["ok"]


def test_a_megabyte_arrives_whole(running: Session) -> None:
    answer = running.op("send", text="🦜" * 250_000, id="big")
    assert answer["error"]["code"] == "not-an-agent"


def test_the_agents_socket_cannot_stop_the_session(running: Session) -> None:
    answer = json.loads(_raw(running.state()["agent_control"], b'{"id": 1, "op": "stop"}\n'))
    assert answer["error"]["code"] == "unknown-op"
    assert json.loads(_raw(running.state()["agent_control"], b'{"id": 1, "op": "event"}\n'))["ok"]
    assert running.sandbox.poll() is None


def test_nobody_answers_for_a_session_that_has_ended(running: Session) -> None:
    runtime = running.state()["runtime"]
    running.op("stop", grace_s=1)
    running.result()
    with pytest.raises(Unreachable):
        running.op("status")
    until(lambda: not os.path.exists(runtime))  # noqa: PTH110
