"""How a request is made to fit, held, or refused, seen with a plain HTTP client on both sides."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from parhelia_mcp.prices import cost_micro, model_price
from tests.fake_api import fake_api, say
from tests.meter.running import OPUS, TOKEN, body, metered, post

HUGE = {"input_tokens": 50, "output_tokens": 10**9}  # a reply that fills whatever max_tokens allows


def until(true, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_the_output_is_lowered_to_what_is_left_and_then_refused(tmp_path):
    with (
        fake_api([say("long").but(usage=HUGE, times=0)]) as api,
        metered(api.url, tmp_path / "book", cap_micro=20_000) as running,
    ):
        assert post(running.url).json()["stop_reason"] == "max_tokens"
        refused = post(running.url)
        assert running.meter.exhausted.is_set()
        assert running.meter.spent_micro == 50 * 5 + api.messages[0].body["max_tokens"] * 25 <= 20_000
    assert 500 < api.messages[0].body["max_tokens"] < 1000
    assert (refused.status_code, refused.headers["x-should-retry"]) == (402, "false")
    assert refused.json()["error"]["type"] == "billing_error"
    assert len(api.messages) == 1


def test_thinking_is_lowered_with_the_output(tmp_path):
    asked = body(max_tokens=32_000, thinking={"type": "enabled", "budget_tokens": 31_999})
    with fake_api([say("a").but(times=0)]) as api:
        for number, cap in enumerate((10**7, 200_000, 40_000)):
            with metered(api.url, tmp_path / str(number), cap_micro=cap) as running:
                assert post(running.url, asked).status_code == 200
    whole, half, none = (seen.body for seen in api.messages)
    assert whole["thinking"]["budget_tokens"] == 31_999
    assert 1024 <= half["thinking"]["budget_tokens"] < half["max_tokens"]
    assert none["thinking"] == {"type": "disabled"}


def test_searches_are_lowered_to_what_is_left(tmp_path):
    asked = body(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}])
    with fake_api([say("found")]) as api, metered(api.url, tmp_path / "book", cap_micro=10**6) as running:
        assert post(running.url, asked).status_code == 200
    assert api.messages[0].body["tools"][0]["max_uses"] == 3


@pytest.mark.parametrize("extra", [{"tools": [{"type": "code_execution_20250825"}]}, {"mcp_servers": [{}]}])
def test_what_has_no_price_is_refused_without_ending_the_session(tmp_path, extra):
    with fake_api([]) as api, metered(api.url, tmp_path / "book", cap_micro=10**7) as running:
        assert post(running.url, body(**extra)).status_code == 400
        assert not running.meter.exhausted.is_set()
    assert api.requests == []


def test_an_image_counts_as_one_and_words_that_look_like_one_count_as_words(tmp_path):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 10**6}}
    shown = body(messages=[{"role": "user", "content": [image]}])
    hidden = body(
        messages=[{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": image}]}]
    )
    schema = body(output_config={"format": {"type": "json_schema", "schema": {"title": "A" * 10**6}}})
    marked = body(
        messages=[{"role": "user", "content": [{"type": "tool_use", "input": {"cache_control": "A" * 10**6}}]}]
    )
    with fake_api([say("seen")]) as api, metered(api.url, tmp_path / "book", cap_micro=10**6) as running:
        assert post(running.url, shown).status_code == 200
        assert post(running.url, hidden).status_code == 402
        assert post(running.url, marked).status_code == 402
        assert post(running.url, schema).status_code == 402


def test_a_summary_that_the_api_may_write_first_is_paid_for_too(tmp_path):
    asked = body(context_management={"edits": [{"type": "compact_20260112"}]})
    with fake_api([say("done").but(times=0)]) as api:
        for number, cap in enumerate((60_000, 70_000)):
            with metered(api.url, tmp_path / str(number), cap_micro=cap) as running:
                assert post(running.url, asked).status_code == 200
    lowered, whole = (seen.body["max_tokens"] for seen in api.messages)
    assert 950 < lowered < whole == 1000


def test_the_beginning_is_only_shared_with_a_request_that_begins_alike(tmp_path):
    def chat(first):
        turns = [("user", first * 50_000), ("assistant", "yes"), ("user", "and now?")]
        return [{"role": role, "content": text} for role, text in turns]

    with fake_api([say("a").but(times=0)]) as api, metered(api.url, tmp_path / "book", cap_micro=10**8) as running:
        post(running.url, body(messages=chat("a")[:1]))
        reserved = [running.meter.reserved_micro]
        gate = threading.Event()
        for messages in (chat("a"), chat("b")):
            gate.clear()
            api.replace(say("b").but(gate=gate))
            sent = threading.Thread(target=post, args=(running.url, body(messages=messages)))
            sent.start()
            until(lambda: running.meter.in_flight == 1 and running.meter.reserved_micro)
            reserved.append(running.meter.reserved_micro)
            gate.set()
            sent.join()
    assert reserved[1] < 50_000 * 5 < reserved[2]


@pytest.mark.parametrize(
    ("mark", "factor"), [({}, 1.0), ({"cache_control": {}}, 1.25), ({"cache_control": {"ttl": "1h"}}, 2.0)]
)
def test_input_is_reserved_at_the_dearest_price_that_it_can_have(tmp_path, mark, factor):
    gate = threading.Event()
    asked = body(
        max_tokens=0, messages=[{"role": "user", "content": [{"type": "text", "text": "a\ud800" * 9_000, **mark}]}]
    )
    with fake_api([say("done").but(gate=gate)]) as api, metered(api.url, tmp_path / "book", cap_micro=10**7) as running:
        raw = json.dumps(asked).encode()
        headers = {"authorization": f"Bearer {TOKEN}"}
        sent = threading.Thread(
            target=httpx.post, args=(running.url + "/v1/messages",), kwargs={"content": raw, "headers": headers}
        )
        sent.start()
        until(lambda: len(api.messages) == 1)
        tokens = running.meter.reserved_micro / (5 * factor)
        gate.set()
        sent.join()
    assert 63_000 < tokens < 65_000  # a half of a pair is sent as six bytes
    assert api.messages[0].body["messages"] == asked["messages"]


def test_a_request_waits_while_another_may_still_take_the_money(tmp_path):
    gate = threading.Event()
    with (
        fake_api([say("first").but(gate=gate), say("second")]) as api,
        ThreadPoolExecutor() as pool,
        metered(api.url, tmp_path / "book", cap_micro=40_000) as running,
    ):
        first = pool.submit(post, running.url)
        until(lambda: len(api.messages) == 1)
        second = pool.submit(post, running.url)
        until(lambda: running.meter.in_flight == 2)
        assert len(api.messages) == 1
        gate.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        assert not running.meter.exhausted.is_set()


def test_a_waiting_request_whose_sender_has_gone_is_never_sent(tmp_path):
    gate = threading.Event()
    with (
        fake_api([say("first").but(gate=gate), say("third")]) as api,
        ThreadPoolExecutor() as pool,
        metered(api.url, tmp_path / "book", cap_micro=40_000) as running,
    ):
        first = pool.submit(post, running.url)
        until(lambda: len(api.messages) == 1)
        headers = {"authorization": f"Bearer {TOKEN}"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(running.url + "/v1/messages", json=body(), headers=headers, timeout=0.3)
        gate.set()
        first.result()
        until(lambda: running.meter.in_flight == 0)
        assert post(running.url).json()["content"][0]["text"] == "third"
    assert len(api.messages) == 2


def test_many_at_once_that_take_all_they_may_never_pass_the_cap(tmp_path):
    cap, chance = 1_500_000, random.Random(4)
    asked = [body(stream=chance.random() < 0.5, max_tokens=chance.choice([100, 5_000, 20_000])) for _ in range(40)]
    with (
        fake_api([say("all").but(usage=HUGE, times=0)]) as api,
        ThreadPoolExecutor(8) as pool,
        metered(api.url, tmp_path / "book", cap_micro=cap) as running,
    ):
        codes = {reply.status_code for reply in pool.map(lambda one: post(running.url, one), asked)}
        spent = running.meter.spent_micro
    assert codes == {200, 402}
    assert cap * 0.9 < sum(cost_micro(usage, model_price(OPUS)) for _, usage in api.billed) == spent <= cap
