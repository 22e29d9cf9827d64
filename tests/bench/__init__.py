"""Measurements against what a user would use instead, in the same run; nothing here is a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing. `holds` is whether `value` is at most `bar`; a row without a bar is there to compare."""

    row: str
    value: float
    unit: str
    bar: float | None
    holds: bool

    @classmethod
    def of(cls, row: str, value: float, unit: str, bar: float | None = None) -> Row:
        return cls(row, round(value, 4), unit, bar, bar is None or value <= bar)
