"""A store and a workspace of every test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from parhelia_mcp.checkpoint.store import Store
from tests.checkpoint import trees


@pytest.fixture(params=[None, b"k" * 32], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return request.param


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A small one: 120 files in nested directories and one of 300 kB."""
    root = tmp_path / "workspace"
    trees.flat(root, 120)
    (root / "large").write_bytes(bytes(range(256)) * 1200)
    return root
