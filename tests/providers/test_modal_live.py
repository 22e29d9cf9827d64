"""The script for a first run with a real account works, as far as the loopback can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.modal_live import OWNER
from tests.modal_loopback.client import Loopback

SLOW = ("out_of_memory_end", "end_by_timeout", "put_and_get_20_mb_seconds")


def test_the_live_run_records_every_step_and_leaves_nothing(loopback: Loopback, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    skip = [word for step in SLOW for word in ("--skip", step)]
    argv = [sys.executable, "-m", "tests.modal_live", "--out", str(out), *skip]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(argv, env={**os.environ, **loopback.env}, cwd=root, check=True, timeout=90)
    found = json.loads(out.read_text())
    failed = {step: answer for step, answer in found.items() if "Error" in str(answer) or "Unreach" in str(answer)}
    assert failed == {}
    assert found["tunnel"]["said"] == "hello"
    assert "cpu_core=0.1419" in found["rates"]
    assert found["cost_after_the_end"]["usd"] > 0
    assert found["gone_from_the_list_seconds"] < 60
    record = loopback.record()["sandboxes"]
    assert not [one for one in record if one["live"] and one["tags"].get("owner") == OWNER]
