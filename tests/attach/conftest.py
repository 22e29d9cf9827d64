from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attach import room as rooms
from tests.attach import server as servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """One session's ssh server for the tests of a module that leave it as it was."""
    running = servers.start(tmp_path_factory.mktemp("room"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rooms.House]:
    """A home whose sessions end with the module."""
    own = rooms.House(tmp_path_factory.mktemp("house"))
    yield own
    own.close()


@pytest.fixture(scope="module")
def task(house: rooms.House) -> str:
    """A session that says something every tenth of a second, ready to be attached to."""
    started = house.begin("while :; do echo tick; sleep 0.1; done")
    house.listening(started)
    return started


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Callable[[], rooms.Person]]:
    with rooms.people(tmp_path) as make:
        yield make
