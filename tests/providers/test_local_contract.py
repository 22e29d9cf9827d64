"""The provider contract on this machine."""

from __future__ import annotations

import pytest

from parhelia_mcp.providers.local import Local
from tests.providers.contract import *  # noqa: F403


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return Local(tmp_path_factory.mktemp("home"))
