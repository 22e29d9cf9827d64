"""The hook inside a session: a checkpoint before a command that can destroy work, and word that a person is needed.

Started by Claude Code as `python -I -S session_hook.py` with the event on stdin; standard library only. It sends one
JSON line to the runner's socket, whose path is in `PARHELIA_CONTROL`, and holds the call until the answer:

- PreToolUse of a risky command: op `checkpoint`, args `{trigger: "risky", tool, command}`. The command then runs; where
  no checkpoint could be taken the agent is told so.
- PermissionRequest: op `waiting`, args `{tool, input, question}`. An answer `{behavior: "allow" | "deny", message}` decides;
  any other leaves it to the dialog.
"""

from __future__ import annotations

import os
import sys

TRIGGERS = (
    b"git", b"rm", b"delete", b"clean", b"shred", b"truncate", b"mkfs", b"dd ", b"chmod", b"chown", b"prune", b"destroy",
    b"drop", b"DROP", b"DELETE", b"TRUNCATE", b"unlink", b"mv ",
)  # fmt: skip
SHELLS = frozenset("sh bash zsh dash".split())
WRAPPERS = frozenset("sudo env nohup time timeout nice exec command xargs then do else ! {".split())
SUBCOMMANDS = {  # program -> subcommands that destroy, each with the options of which one must be there
    "git": {
        "reset": ("--hard", "--merge", "--keep"),
        "clean": ("-f", "--force"),
        "checkout": ("--", ".", "-f", "--force"),
        "switch": ("-f", "--force", "--discard-changes"),
        "restore": (),
        "push": ("-f", "--force", "--force-with-lease", "--mirror", "--delete", "-d", "--prune", "+"),
        "branch": ("-D", "-d", "--delete", "-f", "--force"),
        "tag": ("-d", "--delete", "-f", "--force"),
        "stash": ("drop", "clear", "pop"),
        "worktree": ("remove", "prune"),
        "reflog": ("expire", "delete"),
        "update-ref": ("-d", "--delete"),
        "rebase": (),
        "filter-branch": (),
        "filter-repo": (),
        "gc": ("--prune", "--aggressive"),
        "rm": (),
    },
    "docker": {"system": ("prune",), "volume": ("rm", "prune"), "rm": (), "rmi": ()},
    "kubectl": {"delete": ()},
    "terraform": {"destroy": (), "apply": ()},
}
ALWAYS = frozenset("shred mkfs wipefs dropdb srm".split())
OPTIONS = {  # program -> options of which one makes it risky
    "rm": ("-r", "-R", "-f", "--recursive", "--force", "*"),
    "find": ("-delete", "rm"),
    "rsync": ("--delete",),
    "truncate": ("-s", "--size"),
    "dd": ("of=",),
    "chmod": ("-R", "--recursive"),
    "chown": ("-R", "--recursive"),
    "mv": ("-f", "--force", "/dev/null"),
}
SQL = ("DROP TABLE", "DROP DATABASE", "DROP SCHEMA", "DELETE FROM", "TRUNCATE TABLE")
CALLS = ("shutil.rmtree", "os.remove(", "fs.rmSync", "rimraf")


def risky(command: str) -> bool:
    """Whether shell text can destroy work that only a checkpoint brings back. Text that cannot be parsed is risky."""
    upper = command.upper()
    if any(word in upper for word in SQL) or any(word in command for word in CALLS):
        return True
    words = _words(command)
    return words is None or any(_destroys(simple) for simple in words)


def _words(command: str) -> list[list[str]] | None:
    """The simple commands in shell text as lists of words; None where the quotes do not close."""
    import shlex

    found: list[list[str]] = [[]]
    for line in command.replace("\\\n", " ").replace("$(", ";").replace("`", ";").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&()<>")
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            for word in lexer:
                if word.strip(";|&()"):
                    found[-1].append(word)
                else:
                    found.append([])
        except ValueError:
            return None
        found.append([])
    return [words for words in found if words]


def _destroys(words: list[str]) -> bool:
    while words and (words[0] in WRAPPERS or "=" in words[0] or words[0].startswith("-") or words[0].isdigit()):
        words = words[1:]
    if not words:
        return False
    name, given = words[0].rpartition("/")[2], words[1:]
    if name in SHELLS and "-c" in given[:-1]:
        return risky(given[given.index("-c") + 1])
    if name in ALWAYS or name.startswith("mkfs."):
        return True
    if name in OPTIONS:
        return any(_is(word, option) for word in given for option in OPTIONS[name])
    for position, word in enumerate(given):
        options = SUBCOMMANDS.get(name, {}).get(word)
        if options is not None:
            rest = given[position + 1 :]
            return not options or any(_is(each, option) for each in rest for option in options)
        if name != "git" or not (word.startswith("-") or given[position - 1] in ("-C", "-c")):
            return False
    return False


def _is(word: str, option: str) -> bool:
    """Whether `word` is `option`: also inside a bundle (`-fdx`), with a value (`--delete=x`), or as `+refspec`."""
    if option in ("+", "of="):
        return word.startswith(option)
    if option == "*":
        return "*" in word
    if len(option) == 2 and option[0] == "-" and option != "--":
        return word.startswith("-") and not word.startswith("--") and option[1] in word[1:]
    return word == option or word.startswith(option + "=")


def ask(op: str, args: dict[str, object]) -> dict[str, object]:
    """The runner's result for one request. Raises OSError or ValueError where there is none."""
    import json
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(os.environ["PARHELIA_CONTROL"])
        channel.sendall(json.dumps({"id": f"hook-{os.getpid()}", "op": op, "args": args}).encode() + b"\n")
        with channel.makefile("rb") as lines:
            answer = json.loads(lines.readline())
    if not answer["ok"]:
        raise ValueError(answer["error"]["message"])
    return dict(answer.get("result") or {})


def before_tool(event: dict[str, object], tool: str, command: str) -> dict[str, object] | None:
    if not command or not risky(command):
        return None
    try:
        ask("checkpoint", {"trigger": "risky", "tool": tool, "command": command[:4096]})
    except (OSError, ValueError, KeyError, TypeError) as problem:
        told = f"Parhelia could not take a checkpoint before this command ({problem}). What it destroys cannot be brought back."
        return {"hookEventName": "PreToolUse", "additionalContext": told}
    return None


def permission(event: dict[str, object], tool: str, command: str) -> dict[str, object] | None:
    given = event.get("tool_input") or {}
    try:
        answer = ask("waiting", {"tool": tool, "input": given, "question": tool == "AskUserQuestion"})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the dialog is still there
    if answer.get("behavior") not in ("allow", "deny"):
        return None
    decision = {name: answer[name] for name in ("behavior", "message") if answer.get(name)}
    return {"hookEventName": "PermissionRequest", "decision": decision}


def main() -> None:
    with open(0, "rb", closefd=False) as stdin:
        data = stdin.read()
    _, found, given_bytes = data.partition(b'"tool_input":')
    if b'"PermissionRequest"' not in data and not any(word in (given_bytes if found else data) for word in TRIGGERS):
        return
    import json

    event = json.loads(data)
    tool, given = str(event.get("tool_name", "")), event.get("tool_input") or {}
    answers = {"PreToolUse": before_tool, "PermissionRequest": permission}
    act = answers.get(event.get("hook_event_name", ""))
    said = act(event, tool, str(given.get("command", ""))) if act else None
    if said:
        sys.stdout.write(json.dumps({"hookSpecificOutput": said}) + "\n")


if __name__ == "__main__":
    main()
