"""The fake API is only worth something while the real client is content with it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.claude_client import TOKEN, claude_path, client_env
from tests.fake_api import fake_api, from_main, from_subagent, say, use


def run(work: Path, url: str, *flags: str) -> dict:
    """The last event of one headless run."""
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [claude_path(), "-p", "--output-format", "stream-json", "--verbose", "--model", "opus", *flags, "--", "go"],
        cwd=work,
        env=client_env(work.parent / "home", url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_real_client_runs_a_script_with_a_tool_to_its_end(tmp_path):
    script = [say("first ") + use("Bash", command="echo out-of-the-tool"), say("done")]
    with fake_api(script) as api:
        result = run(tmp_path / "work", api.url, "--permission-mode", "bypassPermissions")
    assert (result["result"], result["is_error"]) == ("done", False)
    assert result["usage"]["output_tokens"] == 10
    assert [seen.token for seen in api.messages] == [TOKEN, TOKEN]
    assert b"out-of-the-tool" in api.messages[1].raw.split(b"tool_result")[1]
    assert [usage["output_tokens"] for _, usage in api.billed] == [5, 5]


def test_a_stream_that_breaks_is_asked_for_again_in_one_piece(tmp_path):
    with fake_api([say("never whole").but(cut_after=4), say("whole")]) as api:
        result = run(tmp_path / "work", api.url)
    assert result["result"] == "whole"
    assert [seen.body.get("stream") for seen in api.messages] == [True, None]


def test_a_subagent_and_the_main_agent_each_get_their_own_replies(tmp_path):
    ask = use("Agent", description="look", prompt="look around", subagent_type="general-purpose")
    script = [
        say("main is done").but(when=lambda seen: from_main(seen) and b"tool_result" in seen.raw, split=7),
        say("the subagent's answer").but(when=from_subagent),
        ask.but(when=from_main),
    ]
    with fake_api(script) as api:
        result = run(tmp_path / "work", api.url, "--permission-mode", "bypassPermissions")
    assert result["result"] == "main is done"
    assert sum(from_subagent(seen) for seen in api.messages) == 1
