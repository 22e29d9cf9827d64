"""The real client behind the meter: what it spends, how it ends, and what it never gets to see."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from parhelia_mcp.prices import cost_micro, model_price
from tests.claude_client import claude_path, client_env
from tests.fake_api import fake_api, use
from tests.meter.running import TOKEN, metered

CAP = 2_000_000
OPUS = "claude-opus-4-8"


def run(tmp_path: Path, url: str, *flags: str, auth: str = "ANTHROPIC_AUTH_TOKEN") -> dict:
    """The last event of one headless run of the client."""
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
