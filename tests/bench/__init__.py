"""Measurements against what a user would use instead, in the same run: medians and ratios, never a timed assertion."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement beside its bar. `value` and `bar` are in `unit`; "x" is a ratio to the peer the row names."""

    row: str
    value: float
    unit: str
    bar: float | None  # None: a row that only compares
    holds: bool


def at_most(row: str, value: float, unit: str, bar: float | None = None) -> Row:
    """A row that holds while its value is not above the bar; without a bar it only compares."""
    return Row(row, round(value, 4), unit, bar, bar is None or value <= bar)


def medians(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, float]:
    """The median seconds of each candidate, all of them run in turn in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + warmup):
        for name, run in candidates.items():
            began = time.perf_counter()
            run()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def program(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Callable[[], object]:
    """A candidate that runs a program to its end."""
    return lambda: subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
