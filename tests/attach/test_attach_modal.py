"""`parhelia attach` to a session on Modal: the loopback's tunnel is the TCP proxy that a test can cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.attach.room import House, Person
from tests.front import eventually
from tests.modal_loopback.client import Loopback

CUTS = 10


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    running = Loopback(tmp_path_factory.mktemp("modal"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, modal: Loopback) -> Iterator[House]:
    sizes = {"PARHELIA_MODAL_CPU": "1", "PARHELIA_MODAL_MEMORY": "1"}
    house = House(tmp_path_factory.mktemp("cloud"), **modal.env, PARHELIA_PROVIDER="modal", **sizes)
    yield house
    house.close()


@pytest.fixture(scope="module")
def far(cloud: House) -> str:
    """A session on Modal that counts, ready to be attached to."""
    task = cloud.begin("number=0; while :; do number=$((number+1)); echo tick $number; sleep 0.1; done")
    eventually(
        lambda: cloud.run("attach", task, "--info-only", code=None).returncode == 0, within=120, what="the tunnel"
    )
    return task


def test_two_people_come_to_a_session_on_modal_and_one_comes_back(
    cloud: House, far: str, person: Callable[[], Person]
) -> None:
    one, two = person(), person()
    one.enter(cloud, far, 1)
    two.enter(cloud, far, 1)
    one.type("pwd; echo $((6*7))-for-two")
    for each in (one, two):
        each.see("42-for-two")
    one.tmux("resize-window", "-x", "77", "-y", "20")
    one.leave()
    one.see(f"left {far}.1: running, checkpoint cp-")
    two.tmux("resize-window", "-x", "90", "-y", "25")
    two.type("until stty size | grep '24 90'; do sleep 0.1; done")
    two.see("\n24 90")
    again = person()
    again.sit(cloud, "attach", far)
    again.see("42-for-two", f"{far}.1 | running")
    again.leave()
    two.leave()


def test_ten_cuts_of_the_tunnel_bring_attach_back_ten_times_and_the_session_never_notices(
    cloud: House, modal: Loopback, far: str, person: Callable[[], Person]
) -> None:
    someone = person()
    someone.enter(cloud, far, 0)
    for _ in range(CUTS):
        before = ticks(someone)
        eventually(lambda: ticks(someone) > before + 12, what="a line that holds")  # noqa: B023 -- called at once
        modal.cut()
        someone.see("Trying again in")
        someone.see("0:agent*")
    someone.leave()
    log = [int(number) for number in re.findall(r"tick (\d+)", cloud.text("logs", far, "--tail", "1000"))]
    assert log == list(range(log[0], log[0] + len(log)))


def ticks(someone: Person) -> int:
    return max(map(int, re.findall(r"tick (\d+)", someone.screen)), default=0)
