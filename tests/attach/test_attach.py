"""`parhelia attach` as people use it: at a terminal, against a session of the local provider, with the real ssh."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import shlex
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mcp import Client

from tests.attach.room import House, Person
from tests.attach.server import run
from tests.front import PARHELIA, eventually
from tests.mcp.talk import call, server_of, talk

People = Callable[[], Person]


def test_a_person_comes_types_resizes_leaves_and_comes_back(house: House, task: str, person: People) -> None:
    first = person()
    first.enter(house, task, 1, "--verbose")
    first.type("pwd; echo $((6*7))")
    first.see(str(house.home / "tasks" / task / "workspace"), "42")
    first.tmux("resize-window", "-x", "77", "-y", "20")
    first.type("until stty size | grep '19 77'; do sleep 0.1; done")
    first.see("\n19 77")
    first.leave()
    first.see(
        "leads to the session", f"left {task}.1: running, checkpoint cp-", "time left:", f"parhelia attach {task}"
    )
    assert re.search(r"\(\d+ files?, \S+ \w+, taken while it worked\)\n", first.screen)
    assert "money left: nothing is charged for it" in first.screen
    second = person()
    second.sit(house, "attach", task)
    second.see("\n42")
    second.press("0")
    second.see("tick")
    second.leave()


def test_two_people_see_the_same_terminal(house: House, task: str, person: People) -> None:
    one, two = person(), person()
    one.enter(house, task, 1)
    two.enter(house, task, 1)
    one.type("echo from-$((1+0))-to-two")
    two.see("from-1-to-two")
    two.type("echo and-back-$((1+1))")
    one.see("and-back-2")
    one.leave()
    two.leave()


def test_a_port_in_use_is_said_and_another_one_taken(house: House, task: str, person: People) -> None:
    with socket.socket() as owner, suppress(OSError):  # refused: then somebody else has it, which is as good
        owner.bind(("127.0.0.1", 2222))
        owner.listen()
        someone = person()
        someone.enter(house, task, 0)
        someone.see("tick")
        someone.leave()
        someone.see("port 2222 is in use on this machine")


def test_a_lost_line_is_joined_again_and_the_agent_never_notices(house: House, task: str, person: People) -> None:
    before = house.listening(task)
    someone = person()
    someone.enter(house, task, 0)
    for _ in range(2):
        old = ssh_server(before["runner"]["pid"])
        os.kill(old, signal.SIGKILL)
        someone.see("Trying again in")
        someone.see("tick", "0:agent*")
    after = house.listening(task)
    assert (after["agent"], after["ssh"]) == (before["agent"], before["ssh"])
    someone.leave()


def test_a_server_that_never_answers_is_tried_for_so_long_and_no_longer(
    house: House, task: str, person: People, tmp_path: Path
) -> None:
    """A try that runs into its own time limit is not a connection that held."""
    quick = tmp_path / "ssh"
    quick.write_text('#!/bin/sh\nexec /usr/bin/ssh -o ConnectTimeout=2 "$@"\n')
    quick.chmod(0o755)
    server = ssh_server(house.listening(task)["runner"]["pid"])
    os.kill(server, signal.SIGSTOP)
    try:
        someone = person()
        someone.sit(house, "attach", task, PATH=str(tmp_path))
        someone.see("does not answer. It was tried for 2", f"parhelia status {task}", "left with 5")
    finally:
        os.kill(server, signal.SIGCONT)


def ssh_server(runner: int) -> int:
    """The process of the ssh server below a runner; 0 where there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            ours = b"inside.ssh_server" in path.read_bytes()
            stat = (path.parent / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if ours and int(stat[1]) == runner and stat[0] != "Z":
            return int(path.parent.name)
    return 0


def test_a_closed_window_is_a_way_to_leave_and_ends_nothing(house: House, task: str, person: People) -> None:
    someone = person()
    someone.enter(house, task, 1)
    someone.type("mark=kept")
    assert clients(house, task) and attaching(task)
    someone.close()
    eventually(lambda: not clients(house, task) and not attaching(task))
    again = person()
    again.enter(house, task, 1)
    again.type("echo $mark-all-along")
    again.see("kept-all-along")
    again.leave()


@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["ssh", "built-in"])
def test_a_window_that_ran_nothing_else_may_be_closed_too(house: House, task: str, path: str | None) -> None:
    """Without a shell around it the kernel tells attach alone that the terminal is gone."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**house.env, "TERM": "xterm-256color", **({"PATH": path} if path else {})}
        os.execve(PARHELIA, [PARHELIA, "attach", task], env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    seen = b""
    while b"| running" not in seen:
        seen += os.read(terminal, 65536)
    before = left_behind(house, task)
    os.close(terminal)
    eventually(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, what="the end of attach")
    assert not clients(house, task)
    assert left_behind(house, task) == before + 1


def test_an_attach_that_is_killed_leaves_a_checkpoint_all_the_same(house: House, task: str, person: People) -> None:
    someone = person()
    someone.enter(house, task, 0)
    before = left_behind(house, task)
    (pid,) = attaching(task)
    ssh = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *ssh):
        os.kill(int(each), signal.SIGKILL)
    eventually(lambda: left_behind(house, task) == before + 1, what="the checkpoint")


def left_behind(house: House, task: str) -> int:
    """How many checkpoints were taken because somebody left."""
    return sum(row["trigger"] == "detach" for row in house.json("checkpoint", "list", "--session", task)["checkpoints"])


def clients(house: House, task: str) -> bytes:
    return run(["tmux", "-S", house.listening(task)["tmux"]["socket"], "list-clients"]).stdout


def attaching(task: str) -> list[str]:
    """The `parhelia attach` processes of a task that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"attach" in words and task.encode() in words and words[1].endswith(b"/parhelia"):
                found.append(path.parent.name)
    return found


def test_without_ssh_the_built_in_client_does_it(house: House, task: str, person: People) -> None:
    someone = person()
    someone.enter(house, task, 1, PATH="/nonexistent")
    someone.type("echo built-$((2*21))")
    someone.see("built-42")
    someone.tmux("resize-window", "-x", "91", "-y", "25")
    someone.type("until stty size | grep '24 91'; do sleep 0.1; done")
    someone.see("\n24 91")
    someone.leave()
    someone.see("there is no ssh on this machine", f"left {task}.1: running")


@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["ssh", "built-in"])
@pytest.mark.parametrize(
    ("names", "code"),
    [(["host.pub"], "host-key-changed"), (["client", "client.pub"], "key-rejected")],
    ids=["host", "client"],
)
def test_a_key_of_another_session_is_refused_and_nothing_is_typed(
    house: House, task: str, person: People, names: list[str], code: str, path: str | None
) -> None:
    other = house.begin("sleep 60")
    house.listening(other)
    right, wrong = house.keys(task), house.keys(other)
    kept = {name: (right / name).read_bytes() for name in names}
    for name in names:
        (right / name).write_bytes((wrong / name).read_bytes())
    try:
        someone = person()
        someone.sit(house, "attach", task, **({"PATH": path} if path else {}))
        someone.see(f"error[{code}]", "left with 4")
    finally:
        for name, data in kept.items():
            (right / name).write_bytes(data)
        house.run("session", "kill", other)


def test_attach_waits_for_a_session_that_has_no_place_yet(tmp_path: Path, person: People) -> None:
    house = House(tmp_path, PARHELIA_LOCAL_MAX_SESSIONS="1")
    try:
        first = house.begin("sleep 60")
        second = house.begin("while :; do echo came; sleep 0.1; done")
        someone = person()
        someone.sit(house, "attach", second)
        someone.see(f"{second}.1 is pending: waits for a free place", "Ctrl-C leaves")
        house.run("session", "kill", first)
        someone.see("came", "0:agent*")
    finally:
        house.close()


@pytest.mark.parametrize(
    ("script", "state", "hint"),
    [
        ("exit 0", "completed", "parhelia pull"),
        ("exit 3", "failed", "parhelia recover"),
        (None, "killed", "parhelia resume"),
    ],
)
def test_a_session_that_has_ended_says_how_to_go_on(
    house: House, person: People, script: str | None, state: str, hint: str
) -> None:
    task = house.begin(script or "sleep 60")
    if script is None:
        house.run("session", "kill", task)
    eventually(lambda: house.json("status", task)["state"] == state)
    assert hint.encode() in house.run("attach", task, code=4).stderr
    someone = person()
    someone.sit(house, "attach", task)
    someone.see("1) resume", "0) nothing", "which [0]")
    someone.type("0")
    someone.see("error[session-ended]", hint, "left with 4")
    assert not house.keys(task).exists()


@pytest.mark.parametrize("code", [0, 3], ids=["completed", "failed"])
def test_a_session_that_has_ended_goes_on_where_the_person_wants_it(house: House, person: People, code: int) -> None:
    task = house.begin(f"if [ -e was-here ]; then echo again; exec sleep 60; fi; touch was-here; exit {code}")
    eventually(lambda: house.json("status", task)["state"] in ("completed", "failed"))
    someone = person()
    someone.sit(house, "attach", task)
    someone.see("which [0]")
    someone.type("1")
    someone.see(f"{task}.2 | running", "again")
    someone.leave()
    house.run("session", "kill", task)


def test_the_end_of_the_session_is_the_end_of_attach(house: House, person: People) -> None:
    task = house.begin("while [ ! -e done ]; do sleep 0.05; done")
    state = house.listening(task)
    someone = person()
    someone.sit(house, "attach", task)
    someone.see("0:agent*")
    Path(state["workspace"], "done").touch()
    someone.see(f"left {task}.1: completed", f"parhelia pull {task}", "left with 0")


def test_without_a_terminal_it_says_how_and_the_command_it_gives_works(house: House, task: str) -> None:
    alone = house.run("attach", task, code=2)
    assert b"error[no-terminal]" in alone.stderr
    assert b"error[unknown-id]" in house.run("attach", "task-zzzzzzzz", code=3).stderr
    told = house.run("attach", task, "--info-only")
    words = shlex.split(told.stdout.decode())
    assert words[0] == "ssh" and told.stdout.count(b"\n") == 1
    seen = run([*words[:-1], words[-1].replace("attach-session -t", "list-windows -F '#W' -t")])
    assert seen.stdout.split() == [b"agent", b"shell", b"log"]


def test_ssh_config_makes_a_session_a_host_for_every_tool(house: House, task: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_bytes(house.run("ssh-config").stdout)
    assert house.json("ssh-config", task)["hosts"][0]["names"] == [f"parhelia-{task}.1", f"parhelia-{task}"]
    (tmp_path / "sent").write_text("text")
    assert run(["scp", "-F", str(config), str(tmp_path / "sent"), f"parhelia-{task}:got"]).returncode == 0
    assert run(["ssh", "-F", str(config), f"parhelia-{task}", "cat got"]).stdout == b"text"
    pulled = run(["rsync", "-e", f"ssh -F {config}", f"parhelia-{task}.1:got", str(tmp_path / "back")])
    assert pulled.returncode == 0 and (tmp_path / "back").read_text() == "text"


HOSTILE = bytes(range(256)) * 2 + (
    b"\x1b]52;c;ZWNobyBwd25lZA==\x07\x1b]0;title\x1b\\\x1bPq#0\x1b\\\x1b[2J\x1b[8m\x9b31m\xc2\x9b5n\x1b_Ga=T\x1b\\"
    + "\u202egnp.exe\u2066\u2069\u200f\n".encode()
)


ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def test_what_a_session_prints_acts_on_no_terminal_but_one_that_attached(house: House) -> None:
    (house.cwd / "hostile").write_bytes(random.Random(7).randbytes(20_000) + HOSTILE)
    task = house.begin("cat hostile; cat hostile >&2; printf '\\033]0;title\\007'; exit 3")
    eventually(lambda: house.json("status", task)["state"] == "failed")
    views = [("logs", task), ("status", task), ("list",), ("task", "show", task), ("status",)]
    views += [(*view, "--json") for view in views]
    for view in views:
        assert not ACTS.search(house.run(*view).stdout.decode()), view
    asked = [("status", {"id": task}), ("status", {}), ("recover", {"id": task, "action": "diagnose"})]
    asked += [("logs", {"id": task, "tail": 500, "stream": stream}) for stream in ("all", "events", "output")]

    async def ask(client: Client) -> list[object]:
        return [await call(client, tool, **arguments) for tool, arguments in asked]

    for what, answer in zip(asked, talk(server_of(house), ask), strict=True):
        assert not any(map(ACTS.search, strings(answer))), what
    assert len("".join(strings(answer))) > 1_000


def strings(value: object) -> Iterator[str]:
    """Every text in an answer."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value
