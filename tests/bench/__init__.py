"""Measurements against the bars of the design. Each module has `rows(workdir)`; nothing here fails a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, the value, and the bar that it should stay under."""

    row: str
    value: float
    unit: str
    bar: float
    holds: bool
