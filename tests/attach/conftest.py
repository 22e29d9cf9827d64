from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attach import server as servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """One session's ssh server for the tests of a module that leave it as it was."""
    running = servers.start(tmp_path_factory.mktemp("room"))
    yield running
    running.end()
