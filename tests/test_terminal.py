"""However it is looked at: wide, narrow, piped, cut off, closed, interrupted, hostile. Never a traceback, never half a JSON."""

from __future__ import annotations

import http.server
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parhelia_mcp.render.text import columns
from tests.front import PARHELIA, Front, eventually
from tests.terminal import Terminal

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b31m\u202etxt.exe\u200b\r\x08\x00end"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A user with tasks that ended in three ways and one that lives, with names that fit nowhere."""
    front = Front(tmp_path_factory.mktemp("terminal"))
    try:
        front.repository()
        front.run("run", "--", "sh", "-c", "echo short")
        front.run("run", "--", "sh", "-c", f"exit 3 # {'a long title ' * 30}", code=3)
        live = front.submit("sh", "-c", "echo 日本語の長い題名; seq 3000; sleep 600", "題名" * 60)
        eventually(lambda: "3000" in front.text("logs", live, "--tail", "3"), what="its output")
        front.json("checkpoint", "create", live)
        yield front
    finally:
        front.close()


@pytest.fixture(scope="module")
def live(front: Front) -> str:
    return front.json("list", "--status", "running")["tasks"][0]["task_id"]


VIEWS = (("list",), ("status",), ("budget", "show"), ("checkpoint", "list"), ("budget", "estimate"))


@pytest.mark.parametrize("wide", [40, 80, 200])
def test_tables_fit_the_terminal_and_say_states_in_words(front: Front, live: str, wide: int) -> None:
    for view in VIEWS:
        shown = Terminal(front, *view, wide=wide).end()
        for line in COLOUR.sub("", shown).splitlines():
            assert columns(line) <= wide or " " not in line.strip(), (view, line)
    shown = Terminal(front, "list", wide=wide).end()
    assert "\x1b[36mrunning\x1b[0m" in shown
    assert live in shown
    assert ("…" in shown) is (wide < 200 or "…" in front.text("list"))
    task = COLOUR.sub("", Terminal(front, "task", "show", live, wide=wide).end())
    assert re.search(r"^gpu: +none$", task, re.M)


def test_nothing_is_coloured_or_cut_where_no_person_looks(front: Front, live: str) -> None:
    for view in (*VIEWS, ("task", "show", live), ("help", "budget")):
        assert b"\x1b" not in front.run(*view).stdout
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in Terminal(front, "list", **variables).end()
    assert "a long title " * 5 in front.text("list")


def test_help_is_drawn_on_a_terminal_and_plain_elsewhere(front: Front) -> None:
    assert "\x1b[" in Terminal(front, "help", "budget").end()
    assert front.text("help", "budget").startswith("# Budget")


def test_watch_draws_what_lives_takes_keys_and_gives_the_terminal_back(front: Front, live: str) -> None:
    terminal = Terminal(front, "watch", wide=100)
    shown = terminal.until("3000")
    assert live in shown
    assert "an hour" in shown
    terminal.press(b"k")
    terminal.until("any other key does not")
    terminal.press(b"n")
    terminal.seen = b""
    terminal.until("q quit")
    terminal.press(b"\x1b[B")
    terminal.until("exit 3")
    terminal.press(b"q")
    terminal.end()
    assert terminal.process.returncode == 0
    assert front.show(live)["state"] == "running"


def test_watch_is_ended_by_an_interruption_and_gives_the_terminal_back(front: Front, live: str) -> None:
    terminal = Terminal(front, "watch", live)
    terminal.until("q quit")
    terminal.process.send_signal(signal.SIGINT)
    terminal.end()
    assert terminal.process.returncode == 130


def test_a_long_wait_rings_the_terminal(front: Front) -> None:
    assert "\x07" in Terminal(front, "run", "--", "sleep", "5.2").end(within=120)
    assert "\x07" not in Terminal(front, "run", "--", "true").end(within=120)


def shell(front: Front, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=front.cwd,
        env={**front.env, "PATH": f"{Path(PARHELIA).parent}:{front.env['PATH']}", **env},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "BrokenPipe" not in done.stderr, done.stderr
    return done


def test_a_reader_that_leaves_early_is_no_error_of_ours(front: Front, live: str) -> None:
    for command in (f"logs {live}", f"logs {live} --json", "list", "help", "completion bash"):
        done = shell(front, f"set -o pipefail; parhelia {command} | head -c 5")
        assert len(done.stdout) == 5
        assert done.stderr == ""
        assert done.returncode in (0, 141), "1 is a task that failed"
    assert shell(front, "parhelia list | head -c 0; exit ${PIPESTATUS[0]}").returncode in (0, 141)


def test_closed_and_full_streams_are_survived(front: Front, live: str) -> None:
    before = (front.home / "parhelia.db").read_bytes()[:16]
    for closed in (">&-", "<&-", "2>&-", ">&- 2>&- <&-"):
        assert shell(front, f"parhelia list {closed}").returncode == 0
        shell(front, f"parhelia logs {live} {closed}")
        shell(front, f"parhelia task show nothing-like-it {closed}")
    assert shell(front, "parhelia list --json > /dev/full").returncode == 7
    assert "output-failed" in shell(front, "parhelia list > /dev/full").stderr
    assert shell(front, "parhelia list --limit 0 2> /dev/full").returncode == 2
    assert (front.home / "parhelia.db").read_bytes()[:16] == before
    assert front.show(live)["state"] == "running"


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_any_locale_shows_any_letter(front: Front, live: str, locale: dict[str, str]) -> None:
    assert "日本語の長い題名" in shell(front, f"parhelia logs {live}", **locale).stdout
    assert "題名" in shell(front, "parhelia list", **locale).stdout
    shell(front, "parhelia status; parhelia help budget; parhelia task show nothing", **locale)


def test_an_interruption_at_any_moment_leaves_no_traceback_and_no_half_object(front: Front, live: str) -> None:
    chance = random.Random(20261123)
    for argv in (("list",), ("status",), ("logs", live), ("task", "show", live)) * 4:
        process = front.start(*argv, "--json")
        time.sleep(chance.uniform(0.04, 0.6))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert b"/parhelia_mcp/" not in err, err.decode()  # what Python does before it has loaded us is its own
        assert process.returncode in (0, 130, -signal.SIGINT, 1), (argv, process.returncode, err)
        if out:
            assert json.loads(out)["schema_version"] == 1
        assert out or process.returncode != 0


def test_an_interruption_that_falls_into_a_callback_comes_again() -> None:
    told = """
import signal, time, weakref
from parhelia_mcp import cli
class Thing: pass
cli.catch_interruptions()
thing = Thing()
watched = weakref.ref(thing, lambda gone: signal.raise_signal(signal.SIGINT))
try:
    del thing
    time.sleep(30)
except KeyboardInterrupt:
    print("again")
"""
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"again\n", b"")


def test_following_ends_on_an_interruption_after_whole_lines(front: Front, live: str) -> None:
    process = front.start("logs", live, "--follow", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.stdout.read(), process.stderr.read()  # `communicate` would lose what `readline` has read ahead
    assert process.wait(30) == 130
    assert err.strip() == b""
    assert rest.endswith(b"\n") or not rest
    assert all(json.loads(line)["schema_version"] == 1 for line in (first + rest).splitlines())


def test_what_a_session_says_never_acts_on_the_terminal(users, tmp_path: Path) -> None:
    front = users("hostile")
    front.repository()
    (front.cwd / "name").write_text(HOSTILE)
    printed = HOSTILE.encode("utf-8", "surrogateescape").decode("latin-1")
    script = "cat name; cat name >&2; printf x > \"$(printf 'bad\\033[31m\\342\\200\\256name')\"; exit 1"
    task = front.submit("sh", "-c", script, printed.replace("\x00", ""))
    front.until(task, "failed")
    checkpoint = front.json("checkpoint", "list")["checkpoints"][0]["checkpoint_id"]
    views = (
        ("logs", task),
        ("list",),
        ("status",),
        ("task", "show", task),
        ("checkpoint", "show", checkpoint),
        ("export",),
        ("recover", task),
        ("pull", task),
    )
    for view in views:
        done = front.run(*view, code=None)
        assert not ACTS.search((done.stdout + done.stderr).decode()), (view, done.stdout)
        if view[0] not in ("logs", "list", "task"):
            continue
        shown = COLOUR.sub("", Terminal(front, *view).end())
        assert not ACTS.search(shown.replace("\r", "")), (view, shown)


def test_a_command_and_a_webhook_are_told_of_an_end(users, tmp_path: Path) -> None:
    posted: list[bytes] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = tmp_path / "facts"
        front = users("told")
        front.repository()
        settings = front.user_home / ".config" / "parhelia" / "parhelia.toml"
        settings.parent.mkdir(parents=True)
        url = f"http://127.0.0.1:{server.server_port}/hook"
        settings.write_text(f'[notify]\ncommand = "sh -c \'cat >> {told}\'"\nwebhook = "{url}"\n')
        front.run("run", "--", "sh", "-c", "exit 4", code=4)
        eventually(lambda: posted and told.exists() and told.read_text().endswith("\n"), what="both to be told")
        server.shutdown()
    for fact in (json.loads(posted[0]), json.loads(told.read_text())):
        assert (fact["state"], fact["reason"]) == ("failed", "agent-exit")
        assert fact["session_id"].endswith(".1")


def test_a_long_checkpoint_shows_how_far_it_is_on_a_terminal_alone(users: Callable[..., Front]) -> None:
    user = users(PARHELIA_FAILPOINT="checkpoint.manifest:sleep=2")
    user.repository()
    (user.cwd / "big.bin").write_bytes(os.urandom(3_000_000))
    task = user.submit("sleep", "600")
    user.until(task, "running", within=120)
    shown = Terminal(user, "checkpoint", "create", task).end(within=120)
    line = re.search(r"\r\x1b\[Ktaking a checkpoint: \d+ files, [\d.]+ MB, [\d.]+ [kM]B/s, \d+ s(?=\r\x1b\[K)", shown)
    assert line, shown
    assert "\r\x1b[Kcheckpoint: " in COLOUR.sub("", shown.rpartition("taking a checkpoint")[2]), (
        "it is wiped before the answer"
    )
    master, side = os.openpty()
    told = user.start("checkpoint", "create", task, "--json", stderr=side)  # a terminal, and a script that reads
    piped = user.start("checkpoint", "create", task)
    for done in (told, piped):
        out, err = done.communicate(timeout=60)
        assert (done.returncode, err or b"") == (0, b"")
        assert b"taking" not in out
    assert not select.select([master], [], [], 0)[0], os.read(master, 1 << 16)
    os.close(side)
    os.close(master)
