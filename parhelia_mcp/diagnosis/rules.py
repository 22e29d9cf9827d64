"""From facts to one cause: tables of rules, read from the top; the first whose every test holds is the diagnosis.

A rule whose first test holds and a later one does not was considered and is ruled out by that fact, and so is every cause
that looks like the one found. A test on a fact that nobody observed does not hold: nothing is concluded from silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from parhelia_mcp.diagnosis import ended, going, keeping, starting
from parhelia_mcp.diagnosis.facts import Fact, Facts
from parhelia_mcp.diagnosis.rule import Rule

TABLES = (keeping.FIRST, starting.RULES, going.RULES, ended.RULES, keeping.LAST)
RULES = tuple(rule for table in TABLES for rule in table)
ALIKE = (  # causes that show themselves to a person in the same way
    frozenset({"agent-hung", "container-frozen", "partition"}),
    frozenset({"gpu-scarce", "no-capacity", "region-unavailable", "quota"}),
    frozenset({"ssh-refused", "ssh-reset", "tmux-gone"}),
    frozenset({"out-of-memory", "disk-full", "bad-entrypoint", "agent-exit"}),
)
UNKNOWN = Rule(
    "unknown",
    "possible",
    (),
    "No rule explains what was seen; the facts are below.",
    "read the log, and send a report",
    "parhelia report {task}",
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause with what speaks for it, what was ruled out by which fact, and the command to type."""

    cause: str
    confidence: str  # "certain" | "likely" | "possible"
    what: str
    fix: str
    next: str
    action: str | None  # what `recover --yes` does about it
    well: bool
    evidence: tuple[Fact, ...] = ()
    ruled_out: tuple[tuple[str, Fact], ...] = ()
    facts: Facts = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """What status, recover and JSON show."""
        return {
            "cause": self.cause,
            "confidence": self.confidence,
            "what": self.what,
            "evidence": [fact.as_dict() for fact in self.evidence],
            "ruled_out": [{"cause": cause, "because": str(fact)} for cause, fact in self.ruled_out],
            "fix": self.fix,
            "next": self.next,
        }


def judge(facts: Facts) -> Diagnosis:
    """The cause that the facts speak for."""
    found = next((rule for rule in RULES if all(test.holds(facts) for test in rule.tests)), UNKNOWN)
    alike = next((group for group in ALIKE if found.cause in group), frozenset())
    ruled_out: dict[str, Fact] = {}
    for rule in RULES:
        against = next((test for test in rule.tests if not test.holds(facts)), None)
        if rule.well or rule.cause == found.cause or against is None or against.name not in facts:
            continue
        begun = rule.tests[0] is not against and rule.tests[0].telling
        if rule.cause in alike or (begun and not found.well):
            ruled_out.setdefault(rule.cause, facts[against.name])
    return _found(found, facts, ruled_out)


def _found(rule: Rule, facts: Facts, ruled_out: dict[str, Fact]) -> Diagnosis:
    named = list(dict.fromkeys(test.name for test in rule.tests if test.name in facts)) or list(facts)
    words = _Words({name: fact.value for name, fact in facts.items() if fact.failed is None})
    return Diagnosis(
        rule.cause,
        rule.confidence,
        rule.what.format_map(words),
        rule.fix.format_map(words),
        rule.next.format_map(words),
        rule.action,
        rule.well,
        tuple(facts[name] for name in named),
        tuple(ruled_out.items()),
        facts,
    )


class _Words(dict):
    """Values for the sentences of a rule; what was not observed is said as such."""

    def __missing__(self, name: str) -> str:
        return f"({name.replace('_', ' ')} not known)"
