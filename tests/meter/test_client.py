"""The real client behind the meter: what it spends, how it ends, and what it never gets to see."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from parhelia_mcp.inside.meter import Credential
from parhelia_mcp.prices import cost_micro, model_price
from tests.claude_client import claude_path, client_env
from tests.fake_api import fake_api, from_main, from_subagent, say, use
from tests.meter.running import KEY, OPUS, TOKEN, meter_process, metered

CAP = 2_000_000


def run(tmp_path: Path, url: str, *flags: str, auth: str = "ANTHROPIC_AUTH_TOKEN") -> dict:
    """The last event of one headless run of the client; all of them are in `tmp_path/output`."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    argv = [claude_path(), "-p", "--output-format", "stream-json", "--verbose", "--model", OPUS]
    done = subprocess.run(
        [*argv, "--permission-mode", "bypassPermissions", *flags, "--", "go"],
        cwd=work,
        env=client_env(tmp_path / "home", url, token=TOKEN, auth=auth),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    (tmp_path / "output").write_bytes(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def bill(api) -> int:
    return sum(cost_micro(usage, model_price(model)) for model, usage in api.billed)


@pytest.mark.parametrize("output", [10_000, 60_000])
def test_the_cap_is_never_passed_and_the_limit_of_the_client_is(tmp_path, output):
    large = use("Bash", command="true").but(usage={"input_tokens": 20_000, "output_tokens": output}, times=0)
    with fake_api([large]) as api:
        run(tmp_path, api.url, "--max-budget-usd", "2")
    assert bill(api) > CAP
    with fake_api([large]) as api, metered(api.url, tmp_path / "book", cap_micro=CAP) as running:
        result = run(tmp_path, running.url)
        assert CAP // 2 < bill(api) == running.meter.spent_micro <= CAP
        assert running.meter.exhausted.is_set()
    assert (result["is_error"], result["api_error_status"]) == (True, 402)
    assert "may spend $2.00" in result["result"]
    assert len(running.told) == len(api.messages)


def test_the_key_is_nowhere_that_the_agent_can_look(tmp_path):
    look = "env; tr '\\0' '\\n' < /proc/$PPID/environ; cat ~/.claude.json; cat ~/.claude/projects/*/*.jsonl; ls -la"
    script = [use("Bash", command=look), say("done")]
    with fake_api(script) as api, metered(api.url, tmp_path / "book", cap_micro=CAP) as running:
        assert run(tmp_path, running.url)["result"] == "done"
    assert [seen.token for seen in api.messages] == [KEY, KEY]
    assert TOKEN.encode() in api.messages[1].raw  # the tool did see the environment
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [data for data in [*written, *(seen.raw for seen in api.requests)] if KEY.encode() in data]


def test_what_was_counted_once_makes_the_next_bound_small(tmp_path):
    counted = {"input_tokens": 20_000, "output_tokens": 50}
    script = [use("Bash", command="echo again").but(usage=counted, times=2), say("done")]
    with fake_api(script) as api, metered(api.url, tmp_path / "book", cap_micro=5 * 10**6) as running:
        run(tmp_path, running.url)
        entries = [json.loads(line) for line in running.book.read_text().splitlines()]
    first, second, third = (entry["micro"] - 64_000 * 25 for entry in entries if "open" in entry)
    assert max(second, third) < first / 2


def test_a_stream_that_breaks_and_its_repetition_are_both_charged(tmp_path):
    script = [say("half").but(cut_after=3), say("whole")]
    with fake_api(script) as api, metered(api.url, tmp_path / "book", cap_micro=5 * 10**6) as running:
        assert run(tmp_path, running.url)["result"] == "whole"
        broken, repeated = running.told
    assert (broken["estimated"], repeated["estimated"]) == (True, False)
    assert (broken["micro_usd"], repeated["micro_usd"]) == (10 * 5 + 64_000 * 25, 175)


def test_a_meter_that_was_killed_charges_what_it_had_promised_and_the_client_goes_on(tmp_path):
    gate = threading.Event()
    script = [say("lost").but(gate=gate), say("done")]
    with fake_api(script) as api:
        with meter_process(api.url, tmp_path / "book", 5 * 10**6) as (process, port, _):
            results: list[dict] = []
            client = threading.Thread(target=lambda: results.append(run(tmp_path, f"http://127.0.0.1:{port}")))
            client.start()
            while not api.messages:
                client.join(0.01)
            process.kill()
            process.wait()
        gate.set()
        with meter_process(api.url, tmp_path / "book", 5 * 10**6, port) as (process, _, (replayed,)):
            after = json.loads(process.stdout.readline())
            client.join()
    assert results[0]["result"] == "done"
    opened = json.loads((tmp_path / "book").read_text().splitlines()[0])
    assert (replayed["key"], replayed["micro_usd"], replayed["estimated"]) == ("m1", opened["micro"], True)
    assert (after["key"], after["micro_usd"]) == ("m2", 175)


def test_parallel_subagents_wait_for_room_and_are_not_refused(tmp_path):
    agents = [use("Agent", description=f"look {n}", prompt="look", subagent_type="general-purpose") for n in range(3)]
    ended = say("all done").but(when=lambda seen: from_main(seen) and seen.raw.count(b'"tool_result"') >= 3)
    script = [ended, say("seen").but(when=from_subagent, times=3, delay_s=0.2), agents[0] + agents[1] + agents[2]]
    with fake_api(script) as api, metered(api.url, tmp_path / "book", cap_micro=3 * 10**6) as running:
        result = run(tmp_path, running.url)
        assert not running.meter.exhausted.is_set()
    assert result["result"] == "all done"
    assert len(running.told) == 5
    reserved = [json.loads(line) for line in (tmp_path / "book").read_text().splitlines()]
    assert sum(entry["micro"] for entry in reserved if "open" in entry) > 3 * 10**6


def test_an_oauth_token_works_like_a_key(tmp_path):
    limits = {"credential": Credential("oauth", KEY), "cap_micro": 5 * 10**6}
    with fake_api([say("done")]) as api, metered(api.url, tmp_path / "book", **limits) as running:
        assert run(tmp_path, running.url, auth="CLAUDE_CODE_OAUTH_TOKEN")["result"] == "done"
        assert running.meter.spent_micro == 175
    (request,) = api.messages
    assert (request.headers["authorization"], request.headers.get("x-api-key")) == (f"Bearer {KEY}", None)
    assert request.headers["anthropic-beta"].split(",").count("oauth-2025-04-20") == 1
