"""The journal is gapless whatever died when."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parhelia_mcp.inside import journal
from parhelia_mcp.inside.journal import LONGEST, Journal


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in path.read_bytes().splitlines()]


def test_a_line_torn_at_any_byte_is_cut_and_its_number_used_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = Journal(path)
    for number in range(3):
        first.append("turn", f"turn {number} ż", deep={"a": [1]})
    first.close()
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        again = Journal(path)
        assert again.append("turn", "after") == 3
        again.close()
        assert numbers(path) == [1, 2, 3]


WRITER = """
import sys
from pathlib import Path
from parhelia_mcp.inside.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("on", flush=True)
while True:
    journal.append("turn", "x" * (journal.seq * 37 % 900))
"""


def test_25_kills_leave_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for attempt in range(25):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.001 * (attempt % 5))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    last = Journal(path)
    last.append("turn", "end")
    last.close()
    assert numbers(path) == list(range(1, last.seq + 1))
    assert last.seq > 25


@pytest.mark.parametrize("event", [{"text": "ż" * 200_000}, {"text": "x", "args": ["y" * 200_000]}])
def test_an_event_that_is_too_long_is_cut_and_stays_readable(tmp_path: Path, event: dict) -> None:
    path = tmp_path / "events.jsonl"
    opened = Journal(path)
    opened.append("message", **event)
    opened.append("message", "after")
    opened.close()
    assert all(len(line) <= LONGEST for line in path.read_bytes().splitlines())
    assert Journal(path).seq == 2


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    opened = Journal(path)
    opened.append("turn", "one")

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(journal.files, "write_all", half)
        opened.append("turn", "two")
    opened.append("turn", "three")
    opened.close()
    assert numbers(path) == [1, 2]
