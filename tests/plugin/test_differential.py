"""The validator's verdict equals what the real client does, for one hook configuration after the other."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from parhelia_mcp.hook_validator import HookValidator
from tests.plugin.client import environment, run_claude

pytestmark = pytest.mark.timeout(400)  # the fixture runs the client once a case, two at a time
GUARD = '#!/bin/sh\ntouch "$CLAUDE_PROJECT_DIR"/GUARDED\nexit 2\n'
Settings = Callable[[str], Any]  # path of the guard -> settings.json as data, text or bytes


def group(command: Any, matcher: Any = "Bash", **fields: Any) -> dict[str, Any]:
    return {"matcher": matcher, "hooks": [{"type": "command", "command": command, **fields}]}


def pre(*groups: Any, **more: Any) -> dict[str, Any]:
    return {"hooks": {"PreToolUse": list(groups)}, **more}


def page(handler: str) -> str:
    head = "name: hooked\ndescription: guards"
    return f"---\n{head}\nhooks:\n  PreToolUse:\n    - matcher: Bash\n      hooks:\n        - {handler}\n---\nDo it.\n"


MOVED = {"CLAUDE_CONFIG_DIR": "moved"}
SKILL = ".claude/skills/hooked/SKILL.md"


@dataclass(frozen=True)
class Case:
    settings: Settings
    code: str = ""  # the finding that an error verdict must name; empty: the guard acts
    guard: str = GUARD
    mode: int = 0o755
    name: str = "guard.sh"
    project: str = "project"
    file: str = ".claude/settings.json"
    env: Mapping[str, str] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "exit 2": Case(lambda g: pre(group(g))),
    "matcher absent": Case(lambda g: pre({"hooks": [{"type": "command", "command": g}]})),
    "matcher list": Case(lambda g: pre(group(g, "Edit, Bash"))),
    "matcher regex": Case(lambda g: pre(group(g, "^Ba.h$"))),
    "relative path": Case(lambda g: pre(group("./guard.sh"))),
    "project variable": Case(lambda g: pre(group('"$CLAUDE_PROJECT_DIR"/guard.sh'))),
    "unknown event beside a good one": Case(lambda g: {"hooks": {"PreToolUze": ["x"], "PreToolUse": [group(g)]}}),
    "exec form": Case(lambda g: pre(group(g, args=[]))),
    "byte order mark": Case(lambda g: b"\xef\xbb\xbf" + json.dumps(pre(group(g))).encode()),
    "seed form": Case(lambda g: pre({"matcher": "Bash", "hooks": [g]}), "HK110"),
    "seed form beside a good one": Case(lambda g: pre(group(g), {"hooks": [g]}), "HK110"),
    "trailing comma": Case(lambda g: json.dumps(pre(group(g)))[:-1] + ",}", "HK101"),
    "hooks null": Case(lambda g: {"hooks": None}, "HK103"),
    "hooks a list": Case(lambda g: {"hooks": [group(g)]}, "HK103"),
    "flat form beside a good one": Case(lambda g: pre(group(g), {"type": "command", "command": g}), "HK111"),
    "no type": Case(lambda g: pre(group(g), {"hooks": [{"command": g}]}), "HK112"),
    "unknown type": Case(lambda g: pre(group(g), {"hooks": [{"type": "script", "command": g}]}), "HK112"),
    "no command": Case(lambda g: pre(group(g), {"hooks": [{"type": "command"}]}), "HK113"),
    "timeout a string": Case(lambda g: pre(group(g, timeout="5")), "HK114"),
    "permissions of a wrong type": Case(lambda g: pre(group(g), permissions={"deny": "Bash"}), "HK104"),
    "switched off": Case(lambda g: pre(group(g), disableAllHooks=True), "HK170"),
    "matcher in lower case": Case(lambda g: pre(group(g, "bash")), "HK123"),
    "matcher a permission rule": Case(lambda g: pre(group(g, "Bash(touch:*)")), "HK123"),
    "matcher a broken regex": Case(lambda g: pre(group(g, "Ba(sh")), "HK122"),
    "file missing": Case(lambda g: pre(group(g + ".gone")), "HK130"),
    "not executable": Case(lambda g: pre(group(g)), "HK132", mode=0o644),
    "carriage return": Case(lambda g: pre(group(g)), "HK135", guard=GUARD.replace("\n", "\r\n")),
    "python without a shebang": Case(
        lambda g: pre(group(g)), "HK133", guard='open("GUARDED", "w")\nraise SystemExit(2)\n', name="guard.py"
    ),
    "interpreter missing": Case(lambda g: pre(group("python9 " + g)), "HK134"),
    "space in an unquoted path": Case(
        lambda g: pre(group("$CLAUDE_PROJECT_DIR/guard.sh")), "HK137", project="my project"
    ),
    "a moved configuration": Case(lambda g: pre(group(g)), file="moved/settings.json", env=MOVED),
    "a moved configuration that is broken": Case(
        lambda g: {"hooks": 1}, "HK103", file="moved/settings.json", env=MOVED
    ),
    "a skill's own": Case(lambda g: page(f'{{"type": "command", "command": "{g}"}}'), file=SKILL),
    "a skill's own in the seed form": Case(page, "HK110", file=SKILL),
    "a skill's own on several lines": Case(lambda g: page("type: command\n          command: ./guard.sh"), file=SKILL),
    "a skill's own for an unknown event": Case(
        lambda g: page(f"type: command\n          command: {g}\n  PreToolUze: []"), "HK120", file=SKILL
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, Any]]:
    """For each case whether the client ran the guard and held the tool back, and the validator's report."""
    root = tmp_path_factory.mktemp("differential")

    def one(item: tuple[int, Case]) -> tuple[bool, Any]:
        number, case = item
        home, project = root / str(number) / "home", root / str(number) / case.project
        (project / ".claude").mkdir(parents=True)
        guard = project / case.name
        guard.write_bytes(case.guard.encode())
        guard.chmod(stat.S_IFREG | case.mode)
        content = case.settings(str(guard))
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        settings = project / case.file
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_bytes(content if isinstance(content, bytes) else content.encode())
        report = HookValidator(home=home, project=project, environ={**environment(home), **case.env}).validate()
        first = [("Skill", {"skill": "hooked"})] if case.file == SKILL else []
        run = run_claude(home, project, [*first, ("Bash", {"command": "touch RAN"})], env=case.env)
        assert run.result["terminal_reason"] == "completed"
        assert "RAN" not in run.stderr
        return (project / "GUARDED").exists() and not (project / "RAN").exists(), report

    with ThreadPoolExecutor(2) as clients:
        return dict(zip(CASES, clients.map(one, enumerate(CASES.values())), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_equals_what_the_client_does(name: str, outcomes: dict[str, tuple[bool, Any]]) -> None:
    acted, report = outcomes[name]
    assert report.ok == acted, str(report)
    assert acted == (not CASES[name].code)
    if CASES[name].code:
        assert CASES[name].code in [finding.code for finding in report.findings if finding.severity == "error"]
