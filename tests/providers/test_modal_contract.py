"""The provider contract on Modal: the real SDK against the loopback."""

from __future__ import annotations

import pytest

from parhelia_mcp.providers.modal import Modal
from tests.modal_loopback.client import Loopback
from tests.providers.contract import *  # noqa: F403


@pytest.fixture(scope="module")
def provider(modal: Modal) -> Modal:
    return modal


def test_the_contract_needs_no_rpc_that_the_loopback_lacks(provider: Modal, loopback: Loopback) -> None:
    assert provider.list("nobody") == []
    assert loopback.record()["unimplemented"] == []
