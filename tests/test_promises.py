"""Each row of the command line's contract, run for real: exit code, what it says, the fields of its JSON, its errors."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.front import PARHELIA, Front, eventually

SUBMITTED = "task_id session_id state reserved_usd estimate_usd remaining_usd next"
SHOWN = """task_id session_id state reason provider prompt command gpu memory_gb cpu created_at started_at ended_at spent_usd
    reserved_usd exit_code observed observed_at last_activity workspace_path checkpoints result attach diagnosis"""
KEPT = """checkpoint_id session_id trigger created_at consistent files bytes stored_bytes partial skipped changed
    expires_at"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A user with a task that is done, one that lives, and two checkpoints of it; nothing in here ends them."""
    front = Front(tmp_path_factory.mktemp("promises"))
    try:
        front.repository(**{"a.txt": "one\n", "b.txt": "two\n"})
        done = json.loads(front.run("run", "--json", "--", "sh", "-c", "echo out; echo new > c.txt").stdout)["task_id"]
        live = front.submit("sh", "-c", "echo up; sleep 600")
        eventually(lambda: "up" in front.text("logs", live), what="its first line")
        first = front.json("checkpoint", "create", live, "-m", "before")["checkpoint_id"]
        (Path(front.show(live)["workspace_path"]) / "a.txt").write_text("other\n")
        second = front.json("checkpoint", "create", live)["checkpoint_id"]
        yield SimpleNamespace(front=front, done=done, live=live, first=first, second=second)
    finally:
        front.close()


def filled(world: SimpleNamespace, line: str) -> list[str]:
    names = {"done": world.done, "live": world.live, "cp": world.first, "cp2": world.second}
    return [word.format(**names) for word in line.split()]


SAYS = [  # command line, exit code (None: of this machine), what its text must match
    ("", 0, r"parhelia run -- echo hello"),
    ("--version", 0, r"^parhelia \d+\.\d+\.\d+$"),
    ("status", 0, r"config +ok(.|\n)*budget(.|\n)*local +ok"),
    ("status {done}", 0, r"state: +completed"),
    ("list", 0, r"TASK +STATE(.|\n)*{live} +running(.|\n)*{done} +completed"),
    ("list --status COMPLETED", 0, r"{done}"),
    ("list --status running,waiting", 0, r"{live}"),
    ("list --limit 1", 0, r"more: --cursor "),
    ("task list", 0, r"{done}"),
    ("task show {done}", 0, r"(?m)^gpu: +none$"),
    ("session list", 0, r"{live}"),
    ("session show {done}.1", 0, r"session: +{done}\.1"),
    ("logs {done}", 0, r"\[entrypoint\](.|\n)*out"),
    ("logs {done} --tail 2", 0, r"."),
    ("logs {done} --grep config", 0, r"config"),
    ("logs {done} --stream output", 0, r"\Aout\n\Z"),
    ("logs {done} --follow", 0, r"out"),
    ("pull {done}", 0, r"1 file in "),
    ("attach {live} --info-only", 0, r"^ssh "),
    ("ssh-config", 0, r"Host parhelia-{live}"),
    ("checkpoint list", 0, r"CHECKPOINT(.|\n)*{cp2}"),
    ("checkpoint list --session {live}", 0, r"{cp}"),
    ("checkpoint list --older-than 7d", 0, r"no checkpoints"),
    ("checkpoint show {cp}", 0, r"checkpoint: +{cp}"),
    ("checkpoint diff {cp} {cp2}", 0, r"~ .*a.txt"),
    ("checkpoint diff {cp} {cp2} --stat", 0, r"4 B -> 6 B"),
    ("checkpoint diff {cp} {cp2} a.txt", 0, r"-one\n\+other"),
    ("checkpoint verify {cp}", 0, r"every byte is right"),
    ("checkpoint gc", 0, r"given back"),
    ("budget show", 0, r"ceiling: +\$\d"),
    ("budget set 30", 0, r"-> \$30\.00; "),
    ("budget set 25", 0, r"-> \$25\.00; "),
    ("budget estimate --gpu H100", 0, r"modal +H100(.|\n)*table, prices of \d{{4}}-"),
    ("budget history", 0, r"nothing was spent"),
    ("recover {done}", 0, r"cause: "),
    ("session recover {done}", 0, r"cause: "),
    ("doctor", None, r"git"),
    ("report {done}", 0, r"."),
    ("reconcile", 0, r"."),
    ("cleanup", 0, r"."),
    ("config", 0, r"budget\.ceiling_usd +25"),
    ("config show", 0, r"agent\.may"),
    ("config diff", 0, r"."),
    ("hooks validate", 0, r"."),
    ("init --print", 0, r"\[checkpoint\]"),
    ("export {done}", 0, r"^task_id,(.|\n)*{done},"),
    ("help", 0, r"Topics: troubleshooting"),
    ("help troubleshooting", 0, r"parhelia recover ID"),
    ("help connection refused", 0, r"ssh tunnel"),
    ("help config", 0, r"default_timeout_hours"),
    ("help submit", 0, r"Usage: parhelia submit"),
    ("completion bash", 0, r"_PARHELIA_COMPLETE=bash_complete"),
    ("completion zsh", 0, r"#compdef parhelia"),
    ("completion fish", 0, r"function _parhelia"),
]


@pytest.mark.parametrize(("line", "code", "says"), SAYS, ids=[row[0] or "nothing" for row in SAYS])
def test_a_command_says_what_it_promises(world: SimpleNamespace, line: str, code: int | None, says: str) -> None:
    done = world.front.run(*filled(world, line), code=code)
    wanted = says.format(live=world.live, done=world.done, cp=world.first, cp2=world.second)
    assert re.search(wanted, done.stdout.decode()), done.stdout.decode()


def test_bash_completes_living_ids_and_states(world: SimpleNamespace) -> None:
    script = """eval "$(parhelia completion bash)"; COMP_WORDS=(parhelia $1 ""); COMP_CWORD=$2
        _parhelia_completion parhelia; printf '%s\\n' "${COMPREPLY[@]}" """
    env = {**world.front.env, "PATH": f"{Path(PARHELIA).parent}:{world.front.env['PATH']}"}
    for words, at, offered in (("logs", "2", world.live), ("list --status", "3", "running")):
        argv = ["bash", "-c", script, "bash", words, at]
        done = subprocess.run(
            argv, env=env, cwd=world.front.cwd, capture_output=True, text=True, timeout=60, check=True
        )
        assert offered in done.stdout.splitlines()


FIELDS = [  # command line, the fields of its one object
    ("run -d --dry-run --json -- true", SUBMITTED),
    ("submit --dry-run x --json", SUBMITTED),
    ("task show {done} --json", SHOWN),
    ("status {live} --json", SHOWN),
    ("list --json", "tasks next_cursor"),
    ("logs {done} --json", "lines next_cursor"),
    ("checkpoint show {cp} --json", KEPT),
    ("checkpoint list --json", "checkpoints"),
    ("checkpoint diff {cp} {cp2} --json", "added changed removed"),
    ("checkpoint verify {cp} --json", "ok problems"),
    ("budget show --json", "ceiling_usd spent_usd reserved_usd remaining_usd by_task"),
    ("status --json", "ok config tasks budget providers"),
    ("hooks validate --json", "ok findings"),
    ("config --json", "config sources"),
    ("export --json", "sessions"),
    ("recover {done} --json", "cause confidence evidence ruled_out did state next"),
    ("doctor --json", "ok checks"),
    ("budget estimate --json", "offers prices_date prices_source"),
    ("budget history --json", "by_day by_task by_kind"),
    ("help budget --json", "topic text"),
    ("init --print --json", "path checks claude_code"),
]


@pytest.mark.parametrize(("line", "fields"), FIELDS, ids=[row[0] for row in FIELDS])
def test_json_is_one_object_with_the_promised_fields(world: SimpleNamespace, line: str, fields: str) -> None:
    out = world.front.run(*filled(world, line), code=None if line.startswith("doctor") else 0).stdout
    assert out.count(b"\n") == 1
    said = json.loads(out)
    assert said["schema_version"] == 1
    assert set(fields.split()) <= set(said)
    _amounts_and_times(said)


def _amounts_and_times(value: Any, name: str = "") -> None:
    """Money is a number with at most 6 places, a time is ISO 8601 in UTC."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _amounts_and_times(inner, key)
    elif isinstance(value, list):
        for inner in value:
            _amounts_and_times(inner, name)
    elif name.endswith("_usd") and value is not None:
        assert isinstance(value, int | float), (name, value)
        assert round(value, 6) == value, (name, value)
    elif name.endswith("_at") and value is not None:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value), (name, value)


REFUSED = [  # command line, exit code, the error's code, what its text names
    ("lits", 2, "unknown-command", r"'list'"),
    ("checkpoint lst", 2, "usage", r"'list'"),
    ("list --stauts x", 2, "usage", r"'--status'"),
    ("list --status runing", 2, "unknown-state", r"--status running"),
    ("list --limit 0", 2, "bad-value", r"limit"),
    ("list --cursor zz", 2, "bad-cursor", r"zz"),
    ("watch --json", 2, "usage", r"--json"),
    ("watch", 2, "no-terminal", r"parhelia list"),
    ("attach {live}", 2, "no-terminal", r"--info-only"),
    ("attach {live} --json", 2, "usage", r"--json"),
    ("completion bash --json", 2, "usage", r"--json"),
    ("completion tcsh", 2, "usage", r"tcsh"),
    ("mcp --json", 2, "usage", r"--json"),
    ("logs {done} --grep (", 2, "bad-pattern", r"\("),
    ("checkpoint show xyz", 2, "bad-id", r"xyz"),
    ("checkpoint list --older-than soon", 2, "bad-duration", r"7d"),
    ("budget set 50,00", 2, "bad-amount", r"50,00"),
    ("budget set -5", 2, "bad-amount", r"-5"),
    ("submit", 2, "nothing-to-do", r"prompt"),
    ("submit x --provider modl", 2, "unknown-provider", r"modal"),
    ("session kill {live_prefix}", 2, "prefix-refused", r"whole id"),
    ("help xyzzy", 2, "unknown-topic", r"troubleshooting"),
    ("task show task-zzzzzzz9", 3, "unknown-id", r"No task"),
    ("checkpoint show cp-00000000", 3, "no-such-checkpoint", r"Checkpoint not found"),
    ("submit x", 4, "agent-missing", r"claude-code"),
    ("resume {live}", 8, "session-live", r"session kill"),
    ("run --gpu L4 -- true", 125, "gpu-unavailable", r"--provider modal --gpu L4"),
    ("run --provider modal --gpu H10 -- true", 125, "gpu-unavailable", r"--gpu H100"),
    ("run -- no-such-program-here", 127, "", r""),
]


@pytest.mark.parametrize(("line", "exit_code", "code", "names"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_refusal_has_its_code_and_says_what_to_do(
    world: SimpleNamespace, line: str, exit_code: int, code: str, names: str
) -> None:
    words = filled(world, line.replace("{live_prefix}", world.live[:9]))
    without_agent = {"PATH": "/usr/bin:/bin"}
    done = world.front.run(*words, code=exit_code, env=without_agent)
    if not code:
        return
    if "--json" in words:
        error = json.loads(done.stdout)["error"]
        assert error["code"] == code
        assert re.search(names, error["message"])
        return
    text = done.stderr.decode()
    assert re.fullmatch(rf"error\[{code}\]: .+ Fix: .+\n", text), text
    assert re.search(names, text), text
    assert done.stdout == b""
    at = words.index("--") if "--" in words else len(words)
    as_json = world.front.run(*words[:at], "--json", *words[at:], code=exit_code, env=without_agent)
    if words[0] not in ("watch", "attach", "completion"):  # these take no --json
        assert json.loads(as_json.stdout)["error"]["code"] == code


def test_what_ends_or_lasts_has_its_exit_code(front: Front, repo: Path) -> None:
    front.run("run", "--", "sh", "-c", "exit 7", code=7)
    failed = front.json("list")["tasks"][0]["task_id"]
    assert front.show(failed)["exit_code"] == 7
    task = front.submit("sh", "-c", "echo up; sleep 600")
    eventually(lambda: "up" in front.text("logs", task), what="its first line")
    kept = front.json("checkpoint", "create", task)
    assert set(KEPT.split()) <= set(kept)
    assert front.json("session", "kill", task)["state"] == "killed"
    back = front.json("resume", task, "--target", "back")
    assert (front.cwd / "back" / "a.txt").read_text() == "one\n"
    assert back["next"].startswith("cd ")
    front.run("resume", task, "--target", "back", code=4)
    front.run("resume", task, "--target", "back", "--force")
    assert "removed" in front.text("checkpoint", "delete", kept["checkpoint_id"])


def test_each_way_of_recovering_does_what_it_is_called(front: Front, repo: Path) -> None:
    task = front.submit("sh", "-c", "echo up; echo kept >> kept.txt; sleep 600")
    eventually(lambda: "up" in front.text("logs", task), what="its first line", within=120)
    assert front.json("recover", task, "--action", "diagnose")["did"] in ("looked", "nothing")
    assert front.show(task)["state"] == "running"
    front.json("checkpoint", "create", task)
    ended = front.json("recover", task, "--action", "kill")
    assert (ended["state"], front.show(task)["state"]) == ("killed", "killed")
    assert front.error("recover", task, "--yes", code=4)["code"] == "killed", "a killed one comes back only by a person"
    assert front.json("recover", task, "--action", "resume")["session_id"] == f"{task}.2"
    kept = Path(front.show(task)["workspace_path"]) / "kept.txt"
    eventually(lambda: kept.exists() and kept.read_text() == "kept\nkept\n", what="it to go on", within=120)
    front.run("session", "kill", task)
    assert front.json("recover", task, "--action", "restart")["session_id"] == f"{task}.3"
    eventually(lambda: kept.exists() and kept.read_text() == "kept\n", what="it to begin again", within=120)
    held = front.json("checkpoint", "list", "--session", task)["checkpoints"]
    removed = front.json("checkpoint", "delete", "--older-than", "0s")["removed"]
    assert removed, "all but the newest of each session"
    assert set(removed) < {one["checkpoint_id"] for one in held}
    assert front.json("checkpoint", "delete", "--older-than", "7d")["removed"] == []


def test_what_mends_the_installation_changes_what_it_names_and_no_more(front: Front, repo: Path) -> None:
    task = front.submit("true")
    front.until(task, "completed", within=120)
    assert front.error("reconcile", "--rebuild", code=8)["code"] == "database-whole"
    for name in ("parhelia.db", "parhelia.db-wal", "parhelia.db-shm"):
        (front.home / name).unlink(missing_ok=True)
    (front.home / "parhelia.db").write_bytes(b"not a database" * 400)
    assert "reconcile --rebuild" in front.error("list", code=6)["hint"]
    kept = front.json("reconcile", "--rebuild")["moved_aside"]
    assert Path(kept).read_bytes().startswith(b"not a database")
    assert front.show(task)["state"] == "completed"
    assert front.json("cleanup", "--terminate")["sandboxes"] == []
    settings = front.user_home / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"model": "x", "hooks": {"Stop": [{"hooks": ["~/.claude/hooks/mine.py"]}]}}')
    front.run("hooks", "validate", code=2)
    (settings.parent / "hooks").mkdir()
    (settings.parent / "hooks" / "mine.py").write_text("#!/usr/bin/env python3\n")
    (settings.parent / "hooks" / "mine.py").chmod(0o755)
    assert front.json("hooks", "validate", "--run", "--fix")["changed"]
    assert front.json("hooks", "install")["changed"]
    written = json.loads(settings.read_text())
    assert (written["model"], set(written["hooks"]) >= {"Stop", "PreToolUse"}) == ("x", True)
    assert front.json("hooks", "validate")["ok"]


def test_a_broken_configuration_is_reported_where_it_must_work_and_refused_elsewhere(front: Front, repo: Path) -> None:
    path = front.user_home / ".config" / "parhelia" / "parhelia.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[budget]\nceilling_usd = 3\n")
    for words in (("status",), ("config",)):
        text = front.run(*words, code=2).stdout.decode()
        assert "did you mean budget.ceiling_usd" in text
        assert f"{path}:2" in text
    front.run("help", "budget")
    assert front.error("submit", "x", code=2)["code"] == "bad-config"
    assert "did you mean" in front.text("init")


@pytest.mark.parametrize("line", ["list", "status", "logs {done}", "task show {done}", "help submit"])
def test_looking_loads_nothing_heavy(world: SimpleNamespace, line: str) -> None:
    told = world.front.run(*filled(world, line), env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr.decode()
    loaded = {name.strip().split(".")[0] for name in re.findall(r"^import time:.*\|(.*)$", told, re.M)}
    assert "parhelia_mcp" in loaded
    assert not loaded & {"rich", "modal", "asyncssh", "mcp", "asyncio", "anyio", "cryptography", "starlette", "httpx"}
