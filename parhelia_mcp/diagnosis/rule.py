"""What rules are made of: a cause, and tests on facts that must all hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parhelia_mcp.diagnosis.facts import Facts


@dataclass(frozen=True, slots=True)
class Test:
    """A condition on one fact. It does not hold for a fact that was not observed, but for `failed`."""

    name: str
    check: Callable[[Any], bool]
    on_failure: bool = False
    telling: bool = True  # holds for few: a rule that begins with it and fails later was worth considering

    def holds(self, facts: Facts) -> bool:
        fact = facts.get(self.name)
        if fact is None:
            return False
        return self.on_failure if fact.failed is not None else not self.on_failure and self.check(fact.value)


@dataclass(frozen=True, slots=True)
class Rule:
    """`what`, `fix` and `next` may name facts in braces. `action` is what recover does about it by itself."""

    cause: str
    confidence: str
    tests: tuple[Test, ...]
    what: str
    fix: str
    next: str
    action: str | None = None
    well: bool = False


def be(name: str, *values: Any, telling: bool = True) -> Test:
    """The fact is one of the values."""
    return Test(name, lambda value: value in values, telling=telling)


def state(*values: str) -> Test:
    return be("state", *values, telling=False)


def over(name: str, least: float) -> Test:
    return Test(name, lambda value: value > least)


def under(name: str, most: float) -> Test:
    return Test(name, lambda value: value < most)


def says(name: str, pattern: str) -> Test:
    """The fact's text matches, in any case."""
    compiled = re.compile(pattern, re.IGNORECASE)
    return Test(name, lambda value: bool(compiled.search(str(value))))


def there(name: str) -> Test:
    """The fact was observed and is something."""
    return Test(name, bool)


def failed(name: str) -> Test:
    """The probe got no answer."""
    return Test(name, lambda value: False, on_failure=True)
