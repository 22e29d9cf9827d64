"""Fixtures that every part shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.front import Front

LONGEST = ("test_modal_storm.py", "test_modal_deaths.py", "test_storm.py", "test_remedies.py", "test_crash.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that none of them is what one worker does alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Callable[..., Front]]:
    """Makes users with their own HOME; whatever they started ends with the test."""
    made: list[Front] = []

    def user(name: str = "user", **environment: str) -> Front:
        made.append(Front(tmp_path / name, **environment))
        return made[-1]

    yield user
    for front in made:
        front.close()


@pytest.fixture
def front(users: Callable[..., Front]) -> Front:
    """One user with an empty HOME."""
    return users()


@pytest.fixture
def repo(front: Front) -> Path:
    """That user's project, a git repository with one commit."""
    return front.repository()
