"""The plugin's hooks as programs: what they say about a call, and what they cost when they have nothing to say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from parhelia_mcp import prices
from tests import setup

RUN = setup.ROOT / "hooks" / "run"
NUMBERS = {"seq": 9, "ceiling_usd": 25, "spent_usd": 10, "reserved_usd": 2, "warning_threshold": 0.8}
RATES = prices.rates()  # an hour of 4 cores, 16 GiB: $0.95; of an A10: $1.10


@pytest.fixture
def state(tmp_path: Path) -> Path:
    budget(tmp_path, **NUMBERS, rates=RATES)
    return tmp_path


def budget(state: Path, **numbers: Any) -> None:
    (state / "budget.json").write_text(json.dumps(numbers))


def event(tool: str, given: dict[str, Any], session: str = "s1", cwd: str = "/") -> str:
    base = {"session_id": session, "cwd": cwd, "permission_mode": "default", "hook_event_name": "PreToolUse"}
    return json.dumps({**base, "tool_name": tool, "tool_input": given, "tool_use_id": "toolu_1"}, separators=(",", ":"))


def bash(command: str, **more: str) -> str:
    return event("Bash", {"command": command}, **more)


def hook(name: str, stdin: str, state: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(RUN), name],
        input=stdin,
        env={"PATH": "/usr/bin:/bin", "PARHELIA_HOME": str(state), "PARHELIA_PYTHON": sys.executable, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def said(name: str, stdin: str, state: Path, **environ: str) -> tuple[str, str]:
    """`(decision, text)`: decision is allow, ask, deny, context or silent."""
    done = hook(name, stdin, state, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    if not done.stdout:
        return "silent", ""
    answer = json.loads(done.stdout)["hookSpecificOutput"]
    assert answer["hookEventName"] == "PreToolUse"
    if "additionalContext" in answer:
        return "context", answer["additionalContext"]
    return answer["permissionDecision"], answer["permissionDecisionReason"]


@pytest.mark.parametrize(
    ("command", "decision", "numbers"),
    [
        ("parhelia submit 'do it'", "context", ("$5.00", "$13.00 of $25.00")),
        ("parhelia submit 'do it' --max-usd 9", "ask", ("$9.00", "above the warning threshold")),
        ("parhelia submit 'do it' --max-usd=14", "deny", ("$14.00", "$13.00 of $25.00", "parhelia budget set")),
        ("cd x && sudo parhelia --json submit go --gpu A10G --provider modal", "context", ("$5.00",)),
        ("parhelia run --gpu A10G --provider modal --max-usd 50 -- python train.py", "ask", ("$8.23",)),
        ("parhelia run --gpu H100:2 --provider modal --max-usd 50 -- python train.py", "deny", ("$35.41",)),
        ("parhelia run --gpu A10 --timeout-hours 0.5 --provider modal -- true", "context", ("$1.03",)),
        ("parhelia run --gpu NEW --timeout-hours 0.5 --provider modal -- true", "context", ("$4.03",)),
        ("parhelia run --provider local -- make", "context", ("$0.00",)),
        ("parhelia resume task-abcdefgh", "context", ("$5.00",)),
        ("parhelia checkpoint rollback cp-00000000", "context", ("$5.00",)),
        ("parhelia budget set 50", "ask", ("from $25.00 to $50.00",)),
        ("parhelia budget set 20", "context", ("from $25.00 to $20.00",)),
        ("echo hi; parhelia submit a --max-usd 1 && parhelia submit b --max-usd 20", "deny", ("$20.00",)),
        ("parhelia submit a --max-usd 7; parhelia submit b --max-usd 7", "deny", ("$7.00", "$6.00 of $25.00")),
        ("bash -lc 'cd x && parhelia submit a --max-usd 20'", "deny", ("$20.00",)),
        ('echo "started $(parhelia submit a --max-usd 20)"', "deny", ("$20.00",)),
        ("parhelia\tsubmit\ta --max-usd 20", "deny", ("$20.00",)),
        ("bash -c 'echo parhelia submit a'", "silent", ()),
        ("parhelia submit x --dry-run", "silent", ()),
        ("parhelia resume task-abcdefgh --target out", "silent", ()),
        ("grep 'parhelia submit' README.md", "silent", ()),
        ("git commit -m 'make parhelia submit faster'", "silent", ()),
        ("parhelia list --status running", "silent", ()),
        ("cd ~/parhelia && npm run test", "silent", ()),
    ],
)
def test_the_spending_guard_judges_shell_commands(
    command: str, decision: str, numbers: tuple[str, ...], state: Path
) -> None:
    got, text = said("spending", bash(command), state)
    assert got == decision, text
    assert all(number in text for number in numbers), text


@pytest.mark.parametrize("prefix", ["mcp__parhelia__", "mcp__plugin_parhelia_parhelia__"])
@pytest.mark.parametrize(
    ("tool", "given", "decision"),
    [
        ("submit", {"prompt": "x", "max_usd": 1}, "context"),
        ("submit", {"prompt": "x", "max_usd": 20}, "deny"),
        ("submit", {"command": ["make"], "gpu": "H100", "provider": "modal", "max_usd": 30}, "deny"),
        ("recover", {"id": "task-abcdefgh", "action": "restart"}, "context"),
        ("recover", {"id": "task-abcdefgh", "action": "diagnose"}, "silent"),
        ("recover", {"id": "task-abcdefgh"}, "silent"),
        ("checkpoint", {"action": "restore", "id": "cp-00000000"}, "context"),
        ("checkpoint", {"action": "create", "id": "task-abcdefgh"}, "silent"),
        ("budget", {"action": "set", "ceiling_usd": 100}, "ask"),
        ("budget", {"action": "show"}, "silent"),
        ("status", {}, "silent"),
    ],
)
def test_the_spending_guard_judges_both_names_of_each_tool(
    prefix: str, tool: str, given: dict[str, Any], decision: str, state: Path
) -> None:
    assert said("spending", event(prefix + tool, given), state)[0] == decision


def test_nothing_passes_when_nothing_is_left(state: Path) -> None:
    budget(state, ceiling_usd=10, spent_usd=9, reserved_usd=1, warning_threshold=0.8)
    assert said("spending", bash("parhelia submit x --max-usd 0.01"), state)[0] == "deny"


def test_a_task_is_taken_to_cost_its_limit_in_the_settings(state: Path) -> None:
    budget(state, **NUMBERS, rates=RATES, per_task_usd=20)
    assert said("spending", bash("parhelia submit x"), state)[0] == "deny"
    budget(state, **NUMBERS, rates=RATES, per_task_usd=0.5)
    assert "may cost up to $0.50" in said("spending", bash("parhelia submit x"), state)[1]


def test_before_anything_was_spent_the_guard_says_so(tmp_path: Path) -> None:
    assert said("spending", bash("parhelia submit x"), tmp_path)[0] == "context"


BROKEN = {
    "crash": "#!/bin/sh\nexit 1\n",
    "signal": "#!/bin/sh\nkill -9 $$\n",
    "garbage": "#!/bin/sh\necho nonsense\n",
    "hang": "#!/bin/sh\nexec sleep 60\n",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_guard_blocks_spending_and_nothing_else(fault: str, state: Path) -> None:
    python = state / "python"
    python.write_text(BROKEN[fault])
    python.chmod(0o755)
    started = time.monotonic()
    done = hook("spending", bash("parhelia submit x"), state, PARHELIA_PYTHON=str(python))
    assert done.returncode == 2
    assert "blocked" in done.stderr
    assert time.monotonic() - started < 10  # the limit that hooks.json sets is 15 s: the client never has to cancel it
    for other in (bash("ls"), bash("parhelia list"), event("mcp__parhelia__status", {})):
        assert hook("spending", other, state, PARHELIA_PYTHON=str(python)).returncode == 0


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"ceiling_usd": 5}', '{"ceiling_usd":-1,"spent_usd":0,"reserved_usd":0}']
)
def test_a_budget_that_makes_no_sense_blocks_spending(content: str, state: Path) -> None:
    (state / "budget.json").write_text(content)
    done = hook("spending", bash("parhelia submit x"), state)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr  # the model reads it
    assert hook("spending", bash("parhelia list"), state).returncode == 0


@pytest.mark.parametrize("fault", ["crash", "signal"])
def test_broken_advice_lets_the_call_pass(fault: str, state: Path) -> None:
    python = state / "python"
    python.write_text(BROKEN[fault].replace("exit 1", "exit 2"))
    python.chmod(0o755)
    assert hook("loss", bash("parhelia session kill task-abcdefgh"), state, PARHELIA_PYTHON=str(python)).returncode == 0
    assert hook("hint", bash("python train.py"), state, PARHELIA_PYTHON=str(python)).returncode == 0


@pytest.mark.parametrize(
    ("call", "asks"),
    [
        (bash("parhelia session kill task-abcdefgh"), True),
        (bash("parhelia task kill abcdefgh"), True),
        (bash("parhelia session kill task-kept0000.2"), False),
        (bash("parhelia session kill kept0000"), False),
        (bash("parhelia checkpoint delete cp-00000000"), True),
        (bash("parhelia checkpoint delete --older-than 7d"), True),
        (bash("parhelia cleanup"), False),
        (bash("parhelia cleanup --terminate"), True),
        (bash("parhelia resume ID --target out --force"), True),
        (bash("parhelia pull ID --apply"), True),
        (bash("parhelia pull ID"), False),
        (bash("echo parhelia session kill x"), False),
        (event("mcp__parhelia__recover", {"id": "task-abcdefgh", "action": "kill"}), True),
        (event("mcp__parhelia__recover", {"id": "task-kept0000", "action": "kill"}), False),
        (event("mcp__plugin_parhelia_parhelia__checkpoint", {"action": "delete", "id": "cp-00000000"}), True),
        (event("mcp__parhelia__checkpoint", {"action": "restore", "id": "cp-00000000", "overwrite": True}), True),
        (event("mcp__parhelia__checkpoint", {"action": "list"}), False),
    ],
)
def test_the_work_loss_guard_asks_before_work_is_lost(call: str, asks: bool, state: Path) -> None:
    kept = state / "tasks" / "task-kept0000" / "checkpoints" / "manifests"
    kept.mkdir(parents=True)
    (kept / "00.json").write_text("")
    assert said("loss", call, state)[0] == ("ask" if asks else "silent")


@pytest.mark.parametrize(
    ("command", "big", "hinted"),
    [
        ("python3 src/train.py --epochs 3", False, True),
        ("torchrun --nproc 8 main.py", False, True),
        ("pytest", True, True),
        ("python -m pytest tests", True, True),
        ("pytest", False, False),
        ("pytest tests/test_one.py", True, False),
        ("make -j8", True, True),
        ("cargo build --release", True, True),
        ("make help", True, False),
        ("echo pytest", True, False),
    ],
)
def test_the_hint_names_heavy_work(command: str, big: bool, hinted: bool, state: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / ".git").mkdir(parents=True)
    (tree / ".git" / "index").write_bytes(b"DIRC\0\0\0\2" + (5000 if big else 10).to_bytes(4, "big"))
    (tree / "sub").mkdir()
    decision, text = said("hint", bash(command, cwd=str(tree / "sub")), state)
    assert decision == ("context" if hinted else "silent")
    if hinted:
        assert "parhelia run" in text
        assert "an hour" in text


def test_the_hint_is_given_once_a_session_and_can_ask_or_be_off(state: Path) -> None:
    command = "torchrun main.py"
    assert said("hint", bash(command), state)[0] == "context"
    assert said("hint", bash(command), state)[0] == "silent"
    assert said("hint", bash(command, session="s2"), state)[0] == "context"
    assert said("hint", bash(command, session="s3"), state, PARHELIA_HINT="ask")[0] == "ask"
    assert said("hint", bash(command, session="s4"), state, PARHELIA_HINT="off")[0] == "silent"


@pytest.mark.parametrize("name", ["spending", "loss", "hint"])
@pytest.mark.parametrize("stdin", ["", "nonsense", "[]", '{"tool_name":"Bash","tool_input":7}'])
def test_an_event_without_sense_is_nobodys_spending(name: str, stdin: str, state: Path) -> None:
    assert hook(name, stdin, state).returncode == 0


def imported(name: str, stdin: str, state: Path) -> set[str]:
    """Modules that a hook's script loads beyond those of the bare interpreter."""

    def modules(*args: str, given: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-v", *args],
            input=given,
            env={"PARHELIA_HOME": str(state)},
            capture_output=True,
            text=True,
            check=False,
        )
        return {line.split("'")[1] for line in done.stderr.splitlines() if line.startswith("import '")}

    return modules(str(RUN.parent / f"{name}.py"), given=stdin) - modules("-c", "pass", given="")


def test_the_hooks_import_next_to_nothing(state: Path) -> None:
    for name in ("spending", "loss", "hint"):
        assert imported(name, bash("parhelia list; pytest x.py"), state) <= {"call", "state", "_json"}
    assert imported("spending", bash("parhelia submit x"), state) <= {"call", "state", "_json"}


def test_the_quiet_path_starts_no_interpreter(state: Path) -> None:
    for name in ("spending", "loss", "hint"):
        done = hook(name, bash("ls -la"), state, PARHELIA_PYTHON=str(state / "missing"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    trace = subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "sh", str(RUN), "spending"],
        input=bash("ls -la"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python" not in trace.stderr


def test_a_version_managers_shim_is_never_used(state: Path) -> None:
    shims = state / "shims"
    shims.mkdir()
    (shims / "python3").write_text(f"#!/bin/sh\ntouch {state}/SHIM\n")
    (shims / "python3").chmod(0o755)
    path = f"{shims}:/usr/bin:/bin"
    hook("spending", bash("parhelia submit x"), state, PARHELIA_PYTHON="", PATH=path)
    assert not (state / "SHIM").exists()
