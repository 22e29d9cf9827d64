"""Each case is a folder: `evidence.json` (facts seen, probes that failed) and `expected.txt` (lines the diagnosis must say).

    cases/CAUSE/CASE/evidence.json    {"facts": {"state": "running", ...}, "failed": {"sandbox": "why"}}
    cases/CAUSE/CASE/expected.txt     cause: agent-hung
                                      next: parhelia recover task-case0001 --yes
                                      not: container-frozen

A new folder is a new test. One whose name begins with `near-` looks like CAUSE and is something else.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parhelia_mcp.diagnosis.facts import Fact
from parhelia_mcp.diagnosis.rules import RULES, Diagnosis, judge

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(path.parent for path in CASES.glob("*/*/evidence.json"))
TASK = {"task": "task-case0001", "session": "task-case0001.1"}


def diagnosed(folder: Path) -> Diagnosis:
    given = json.loads((folder / "evidence.json").read_text())
    seen = {name: Fact(name, value, "case", "then") for name, value in {**TASK, **given["facts"]}.items()}
    failed = {name: Fact(name, None, "case", "then", why) for name, why in given.get("failed", {}).items()}
    return judge(seen | failed)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_the_facts_lead_to_the_cause(folder: Path) -> None:
    found = diagnosed(folder)
    said = {
        "cause": [found.cause],
        "next": [found.next],
        "confidence": [found.confidence],
        "not": [cause for cause, _ in found.ruled_out],
    }
    for line in (folder / "expected.txt").read_text().splitlines():
        name, _, value = line.partition(": ")
        assert value in said[name], (line, found)
    assert found.cause == folder.parent.name or folder.name.startswith("near-")
    assert "{" not in found.what + found.next


def test_every_cause_has_two_cases_and_one_of_them_a_near_miss() -> None:
    causes = {rule.cause for rule in RULES}
    by_cause = {cause: {folder.name for folder in FOLDERS if folder.parent.name == cause} for cause in causes}
    assert [cause for cause, names in by_cause.items() if len(names) < 2] == []
    assert [cause for cause, names in by_cause.items() if not any(name.startswith("near-") for name in names)] == []
    assert [cause for cause, names in by_cause.items() if all(name.startswith("near-") for name in names)] == []


def test_every_rule_is_reached_by_a_case() -> None:
    """A rule that an earlier one always hides would be a line that says nothing."""
    reached = {(found.cause, found.fix) for found in map(diagnosed, FOLDERS)}
    hidden = [
        (rule.cause, rule.fix)
        for rule in RULES
        if (rule.cause, _filled(rule.fix)) not in {(c, _filled(f)) for c, f in reached}
    ]
    assert hidden == []


def _filled(text: str) -> str:
    """The words of a sentence up to its first fact."""
    return text.partition("{")[0][:20]
