"""Whether what a hook's command names exists, can be started, and cannot be changed by others. Nothing is run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from parhelia_mcp.hook_validation.model import Finding, Hook
from parhelia_mcp.hook_validation.sources import Place

INTERPRETERS = re.compile(r"(python[0-9.]*|bash|sh|zsh|dash|node|deno|bun|ruby|perl|php|tsx|ts-node)$")
BUILTINS = frozenset(
    "[ [[ : . { ( ! cd echo eval exec exit export false for if printf read set source test true while".split()
)
SECRET = re.compile(r"sk-ant-[\w-]{8,}|gh[pousr]_\w{20,}|AKIA[A-Z0-9]{16}|xox[abpr]-[\w-]{10,}|as-[A-Za-z0-9]{20,}")
PIPED = re.compile(r"\b(curl|wget)\b[^|;]*\|\s*(sudo\s+)?(ba|z|da)?sh\b")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
_OPERATOR = frozenset({";", "&&", "||", "|", "&"})
INLINE = {"sh": "-c", "bash": "-c", "zsh": "-c", "dash": "-c", "node": "-e", "perl": "-e", "ruby": "-e"}


def check(hook: Hook, place: Place) -> Iterator[Finding]:
    """Findings about the first program in a hook's command; text that cannot be resolved here is left alone."""
    command = hook.command
    yield from _risks(hook, command, place)
    known = _variables(hook, place)
    if broken := _unquoted(command, known):
        fix = command.replace(broken, f'"{broken}"')
        yield hook.finding("HK137", "error", f"{broken} holds a space and is not quoted: the shell splits it.", fix)
        return
    words = _words(hook, command, known)
    if not words:
        return
    program = words[0]
    if program in BUILTINS:
        return
    if "/" not in program:
        if not shutil.which(program, path=place.environ.get("PATH")):
            what = f"There is no program {program!r} on the PATH; Claude Code lets the tool run."
            yield hook.finding("HK134", "error", what, f"install {program}, or write its whole path")
            return
    else:
        path = _located(program, place)
        faults = list(_runnable(hook, program, path, place))
        yield from faults
        if faults and faults[-1].severity == "error":
            return
    if INTERPRETERS.match(Path(program).name) and (script := _script(words)):
        yield from _exists(hook, script, _located(script, place))


def started(hook: Hook, place: Place) -> list[Path]:
    """The files that a hook's command names to be run: its program, and the script that an interpreter is given."""
    words = _words(hook, hook.command, _variables(hook, place)) if hook.command else []
    named = [word for word in words[:1] if "/" in word]
    if words and INTERPRETERS.match(Path(words[0]).name):
        named += filter(None, [_script(words)])
    return [_located(word, place) for word in named]


def _risks(hook: Hook, command: str, place: Place) -> Iterator[Finding]:
    if SECRET.search(command):
        yield hook.finding(
            "HK142", "warning", "The command holds what looks like a key.", "read it from the environment"
        )
    if PIPED.search(command):
        yield hook.finding(
            "HK142", "warning", "The command runs what the network sends.", "save the script, read it, run that"
        )
    homes = ("/home/", "/Users/", "/root/")
    if hook.source.kind == "plugin" and any(home in command for home in homes):
        fix = 'sh "${CLAUDE_PLUGIN_ROOT}"/hooks/NAME'
        severity = "warning" if str(place.home) in command else "error"  # in the user's own home it may work
        yield hook.finding("HK138", severity, "A plugin's hook names a path of one machine.", fix)


def _variables(hook: Hook, place: Place) -> dict[str, str]:
    known = {**place.environ, "HOME": str(place.home), "CLAUDE_PROJECT_DIR": str(place.project)}
    if hook.source.root:
        known["CLAUDE_PLUGIN_ROOT"] = str(hook.source.root)
    return known


def _unquoted(command: str, known: dict[str, str]) -> str:
    """The first expansion outside quotes whose value has a space."""
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: " " * len(quoted[0]), command)
    for match in _VARIABLE.finditer(outside):
        if " " in known.get(match[1] or match[3], match[2] or ""):
            return match[0]
    return ""


def _words(hook: Hook, command: str, known: dict[str, str]) -> list[str]:
    """The words of the first simple command, expanded; empty where that needs a shell to know."""
    if isinstance(hook.fields.get("args"), list):
        return [_expand(command, known) or "", *hook.fields["args"]] if _expand(command, known) else []
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=";|&")
        lexer.whitespace_split = True
        raw = list(lexer)
    except ValueError:
        return []
    words: list[str] = []
    for word in raw:
        if word in _OPERATOR:
            break
        if not words and re.match(r"\w+=", word):
            continue
        expanded = _expand(word, known)
        if expanded is None:
            break
        words.append(expanded)
    while words and words[0] in ("env", "exec", "nice", "nohup"):
        words.pop(0)
        while words and (words[0].startswith("-") or re.match(r"\w+=", words[0])):
            words.pop(0)
    return words


def _expand(word: str, known: dict[str, str]) -> str | None:
    """`word` with home and variables filled in; None where one is not known here, or a shell would compute it."""
    if "`" in word or "$(" in word:
        return None
    if word == "~" or word.startswith("~/"):
        word = known["HOME"] + word[1:]
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        found = known.get(match[1] or match[3])
        if not found and match[2] is not None:
            return match[2].replace("$HOME", known["HOME"])
        missing = missing or found is None
        return found or ""

    filled = _VARIABLE.sub(value, word)
    return None if missing else filled


def _script(words: list[str]) -> str:
    """The script that an interpreter is given; empty for inline code and modules."""
    name = Path(words[0]).name
    for word in words[1:]:
        if word in ("-c", "-m", "-e", "-", "-s") or word == INLINE.get(name):
            return ""
        if not word.startswith("-"):
            return word if "/" in word or "." in word else ""
    return ""


def _located(word: str, place: Place) -> Path:
    path = Path(word)
    return path if path.is_absolute() else place.project / path


def _exists(hook: Hook, word: str, path: Path) -> Iterator[Finding]:
    """Findings about the file behind `word`: there, a file, nobody else's to write."""
    if not os.path.lexists(path):
        what = f"{path} does not exist; the call will NOT be blocked."
        yield hook.finding("HK130", "error", what, f"put the script there, or correct the path: ls {path.parent}")
        return
    if not path.exists():
        yield hook.finding("HK131", "error", f"{path} is a dangling link to {path.readlink()}.", f"ls -l {path}")
        return
    if not path.is_file():
        yield hook.finding("HK131", "error", f"{path} is not a file.", f"name the script in it: ls -l {path}")
        return
    yield from _writable(hook, path)
    if not Path(word).is_absolute():
        what = f"{word} depends on the directory Claude Code is started in."
        yield hook.finding("HK136", "warning", what, f'"$CLAUDE_PROJECT_DIR"/{word.removeprefix("./")}')


def _writable(hook: Hook, path: Path) -> Iterator[Finding]:
    for part in (path, path.parent):
        found = part.stat()
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_mode & stat.S_IWOTH and not sticky:
            what = f"Everybody on this machine can change {part}, and so what this hook runs."
            yield hook.finding("HK140", "error", what, f"chmod go-w {part}")
        elif found.st_uid not in (0, os.geteuid()):
            what = f"{part} belongs to another user (uid {found.st_uid}), who can change what this hook runs."
            yield hook.finding("HK140", "error", what, f"sudo chown $(id -u) {part}")
        elif found.st_mode & stat.S_IWGRP and found.st_gid != os.getegid():
            yield hook.finding("HK140", "warning", f"A group can change {part}.", f"chmod g-w {part}")


def _runnable(hook: Hook, word: str, path: Path, place: Place) -> Iterator[Finding]:
    """Findings about a file that is started directly: also its mode and its first line."""
    yield from _exists(hook, word, path)
    if not path.is_file():
        return
    if not path.stat().st_mode & 0o111:
        yield hook.finding("HK132", "error", f"{path} is not executable.", f"chmod +x {path}   or   {_through(path)}")
        return
    try:
        with path.open("rb") as script:
            first = script.read(256).split(b"\n", 1)[0]
    except OSError as problem:
        yield hook.finding("HK102", "error", f"{path} cannot be read: {problem.strerror}.", f"chmod u+r {path}")
        return
    if not first.startswith(b"#!"):
        if path.suffix in (".py", ".js", ".rb", ".pl", ".ts"):
            what = f"{path} has no shebang: the shell reads it as shell script."
            yield hook.finding(
                "HK133", "error", what, f"first line: #!/usr/bin/env {_language(path)}   or   {_through(path)}"
            )
        return
    if first.endswith(b"\r"):
        what = f"The first line of {path} ends in a carriage return: its interpreter is not found."
        yield hook.finding("HK135", "error", what, f"sed -i 's/\\r$//' {path}")
        return
    words = first[2:].decode("utf-8", "replace").split()
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if words and not shutil.which(words[0], path=place.environ.get("PATH")):
        what = f"The interpreter of {path} is not here: {words[0]}."
        yield hook.finding(
            "HK134", "error", what, f"install it, or change the first line: #!/usr/bin/env {_language(path)}"
        )


def _language(path: Path) -> str:
    return {".py": "python3", ".js": "node", ".ts": "tsx", ".rb": "ruby", ".pl": "perl"}.get(path.suffix, "bash")


def _through(path: Path) -> str:
    return f'"command": "{_language(path)} {path}"'
