"""Which shell commands can destroy work that only a checkpoint brings back. A table, and enough of a shell to read it."""

from __future__ import annotations

import shlex

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
