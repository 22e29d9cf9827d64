"""What the meter passes on, and what it does not, seen with a plain HTTP client on both sides."""

from __future__ import annotations

import json
import threading
import time

import httpx2 as httpx
import pytest

from parhelia_mcp.inside.meter import Credential
from tests.fake_api import fail, fake_api, say
from tests.meter.running import KEY, OPUS, TOKEN, body, metered, post

NEGATIVE = b'{"model": "m", "max_tokens": -1000000, "messages": []}'


def test_a_reply_in_one_piece_is_passed_on_and_charged(tmp_path):
    with fake_api([say("hello")]) as api, metered(api.url, tmp_path / "book") as running:
        reply = post(running.url)
        assert reply.json()["content"][0]["text"] == "hello"
        assert running.meter.spent_micro == 10 * 5 + 5 * 25
    (told,) = running.told
    assert (told["key"], told["micro_usd"], told["model"]) == ("m1", 175, OPUS)
    assert (told["input_tokens"], told["output_tokens"], told["estimated"]) == (10, 5, False)


@pytest.mark.parametrize("split", [None, 1, 13])
def test_a_stream_arrives_unchanged_and_is_charged_however_it_is_cut(tmp_path, split):
    usage = {"input_tokens": 7, "cache_read_input_tokens": 100, "output_tokens": 40}
    with fake_api([say("hello").but(usage=usage, split=split, times=2)]) as api:
        straight = post(api.url, body(stream=True)).text
        with metered(api.url, tmp_path / "book") as running:
            through = post(running.url, body(stream=True)).text
            assert through == straight.replace("msg_0001", "msg_0002")
            assert running.meter.spent_micro == 7 * 5 + 50 + 40 * 25


def test_events_are_passed_on_as_they_come(tmp_path):
    with fake_api([say("hello").but(pace_s=0.1)]) as api, metered(api.url, tmp_path / "book") as running:
        headers = {"authorization": f"Bearer {TOKEN}"}
        arrived = []
        with httpx.stream("POST", running.url + "/v1/messages", json=body(stream=True), headers=headers) as reply:
            arrived = [time.monotonic() for line in reply.iter_lines() if line.startswith("data:")]
    assert len(arrived) == 7
    assert arrived[-1] - arrived[0] > 0.4


@pytest.mark.parametrize(
    ("credential", "seen", "betas"),
    [
        (Credential("api-key", KEY), {"x-api-key": KEY}, "one"),
        (Credential("oauth", KEY), {"authorization": f"Bearer {KEY}"}, "one,oauth-2025-04-20"),
        (Credential("none", ""), {}, "one"),
    ],
)
def test_the_upstream_sees_the_credential_and_never_the_token(tmp_path, credential, seen, betas):
    with fake_api([say("hello")]) as api, metered(api.url, tmp_path / "book", credential=credential) as running:
        headers = {"anthropic-beta": "one", "x-kept": "yes", "x-hop": "no", "connection": "x-hop"}
        assert post(running.url, **headers).status_code == 200
    (request,) = api.messages
    auth = {name: value for name, value in request.headers.items() if name in ("x-api-key", "authorization")}
    assert auth == seen
    assert (request.headers["anthropic-beta"], request.headers["accept-encoding"]) == (betas, "identity")
    assert (request.headers["x-kept"], request.headers.get("x-hop")) == ("yes", None)
    assert (request.path, request.headers["host"]) == ("/v1/messages?beta=true", api.url.removeprefix("http://"))
    assert TOKEN not in str(request.headers)


def test_a_wrong_token_and_other_doors_never_reach_the_upstream(tmp_path):
    with fake_api([say("hello")]) as api, metered(api.url, tmp_path / "book") as running:
        wrong = post(running.url, token="guess")
        other = post(running.url, path="/v1/messages/batches")
        assert httpx.head(running.url).status_code == 200
    assert (wrong.status_code, wrong.headers["x-should-retry"]) == (401, "false")
    assert other.status_code == 404
    assert api.requests == []


def test_counting_tokens_is_free(tmp_path):
    with fake_api([]) as api, metered(api.url, tmp_path / "book", cap_micro=0) as running:
        assert post(running.url, path="/v1/messages/count_tokens").json()["input_tokens"] > 0
        assert (running.meter.spent_micro, running.told) == (0, [])


def test_an_error_of_the_upstream_is_passed_on_and_costs_nothing(tmp_path):
    busy = fail(529, "overloaded_error", "busy", retry=True)
    with fake_api([busy]) as api, metered(api.url, tmp_path / "book", cap_micro=10**6) as running:
        reply = post(running.url)
        assert (reply.status_code, reply.json()["error"]["type"]) == (529, "overloaded_error")
        assert (running.meter.spent_micro, running.meter.reserved_micro) == (0, 0)


def test_an_upstream_that_is_not_there_costs_nothing(tmp_path):
    with fake_api([]) as api:
        gone = api.url
    with metered(gone, tmp_path / "book", cap_micro=10**6) as running:
        assert post(running.url).status_code == 502
        assert (running.meter.spent_micro, running.meter.reserved_micro) == (0, 0)


def test_a_stream_that_breaks_is_charged_at_most_its_bound_and_breaks_for_the_agent_too(tmp_path):
    with fake_api([say("hello").but(cut_after=3)]) as api, metered(api.url, tmp_path / "book") as running:
        with pytest.raises(httpx.RemoteProtocolError):
            post(running.url, body(stream=True))
        assert running.meter.spent_micro == 10 * 5 + 1000 * 25
    assert running.told[0]["estimated"]


def test_a_reply_that_nobody_waits_for_is_read_to_its_end(tmp_path):
    with fake_api([say("hello").but(pace_s=0.05)]) as api, metered(api.url, tmp_path / "book") as running:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.stream("POST", running.url + "/v1/messages", json=body(stream=True), headers=headers) as reply:
            next(reply.iter_raw())
        deadline = time.monotonic() + 10
        while running.meter.in_flight and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert running.meter.spent_micro == 175


def test_what_was_counted_is_what_is_sent(tmp_path):
    twice = json.dumps(body()).replace('"max_tokens": 1000', '"max_tokens": 64000, "max_tokens": 1000')
    headers = {"authorization": f"Bearer {TOKEN}"}
    with fake_api([say("hello")]) as api, metered(api.url, tmp_path / "book", cap_micro=100_000) as running:
        assert httpx.post(running.url + "/v1/messages", content=twice, headers=headers).status_code == 200
    assert api.messages[0].raw.count(b"max_tokens") == 1


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model": "x"}', b"[" * 100_000, NEGATIVE])
def test_nonsense_is_refused_before_anything_is_reserved(tmp_path, raw):
    headers = {"authorization": f"Bearer {TOKEN}"}
    with fake_api([]) as api, metered(api.url, tmp_path / "book", cap_micro=10**6) as running:
        assert httpx.post(running.url + "/v1/messages", content=raw, headers=headers).status_code == 400
        assert not running.meter.exhausted.is_set()
    assert api.requests == []
