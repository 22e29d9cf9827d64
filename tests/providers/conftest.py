"""One loopback Modal for the tests of a process: the SDK reads where to go when it is imported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from parhelia_mcp.providers.modal import Modal, ModalSettings
from tests.modal_loopback.client import Loopback


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    running = Loopback(tmp_path_factory.mktemp("modal"))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in running.env.items():
            environment.setenv(name, value)
        yield running
    running.stop()


@pytest.fixture
def loopback(server: Loopback) -> Iterator[Loopback]:
    """The server, healthy; whatever a test breaks is mended after it."""
    yield server
    server.faults()
    server.machines(True)


@pytest.fixture(scope="session")
def modal(server: Loopback) -> Modal:
    return Modal(ModalSettings())
