"""The tool call a hook was asked about: read from stdin, taken apart without `json` and `re`, which cost 7 ms each.

No package is imported: a hook must run on any Python 3 within milliseconds, before anything is installed.
"""

import posix

LIMIT = 8 << 20


def read():
    """The event on stdin as a dict. Raises ValueError for anything else."""
    parts, size = [], 0
    while True:
        part = posix.read(0, 1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > LIMIT:
            raise ValueError("the event is larger than 8 MiB")
    event = parse(b"".join(parts).decode())
    if not isinstance(event, dict) or not isinstance(event.get("tool_input", {}), dict):
        raise ValueError("the event is not an object")
    return event


class _Grammar:
    strict = False
    object_hook = object_pairs_hook = parse_constant = None
    parse_float = float
    parse_int = int
    memo = {}


def parse(text):
    """`json.loads` by way of its C scanner; raises ValueError for what is not one JSON document."""
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text)
    text = text.strip()
    try:
        value, end = make_scanner(_Grammar)(text, 0)
    except (StopIteration, SystemError):  # the scanner wants to raise a class of `json`, which is not loaded
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON document")
    return value


def quote(text):
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii(text)


def answer(decision, text):
    """Print the hook's answer: `decision` is allow, ask or deny with a reason; None adds `text` as context."""
    if decision:
        body = f'"permissionDecision":{quote(decision)},"permissionDecisionReason":{quote(text)}'
    else:
        body = f'"additionalContext":{quote(text)}'
    data = f'{{"hookSpecificOutput":{{"hookEventName":"PreToolUse",{body}}}}}\n'.encode()
    while data:
        data = data[posix.write(1, data) :]


def exists(path):
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def leave(code=0):
    """End at once, without the interpreter's own tidying up: a millisecond a call."""
    posix._exit(code)


def commands(text):
    """Each simple command in shell `text` as a list of words, without assignments and wrappers such as sudo.

    Those in a quoted `$(...)` and in what a shell is given by `-c` too.
    """
    found = []
    for words in _split(text):
        for word in words:
            if "$(" in word:
                found += commands(word.partition("$(")[2])
        while words and (_assignment(words[0]) or words[0] in WRAPPERS):
            wrapper = words.pop(0)
            while wrapper in WRAPPERS and words and (words[0].startswith("-") or words[0][:1].isdigit()):
                words.pop(0)
        if words:
            name = words[0].rpartition("/")[2]
            found.append([name, *words[1:]])
            found += commands(_script(words[1:])) if name in SHELLS else []
    return found


def _script(given):
    """What a shell is to run by these arguments, where that stands in them."""
    for number, word in enumerate(given[:-1]):
        if word[:1] == "-" and word[1:2] != "-" and "c" in word:
            return given[number + 1]
    return ""


SHELLS = frozenset("sh bash dash zsh".split())


WRAPPERS = frozenset(
    "sudo env nohup time timeout nice exec command stdbuf setsid xargs then do else ! { uv poetry pdm hatch rye pipenv".split()
)


def _assignment(word):
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _split(text):
    """Words by POSIX quoting, cut into commands at ; & | newlines, parentheses and backquotes."""
    command, word, started, held = [], [], False, ""
    position, end = 0, len(text)
    while position <= end:
        sign = text[position] if position < end else "\n"
        position += 1
        if held:
            if sign == held:
                held = ""
            elif sign == "\\" and held == '"' and text[position : position + 1] in ('"', "\\", "$", "`"):
                word.append(text[position])
                position += 1
            else:
                word.append(sign)
        elif sign in "'\"":
            held, started = sign, True
        elif sign == "\\" and position < end:
            if text[position] != "\n":
                word.append(text[position])
                started = True
            position += 1
        elif sign in " \t\n;&|()`":
            if started or word:
                command.append("".join(word))
                word, started = [], False
            if sign not in " \t" and command:
                yield command
                command = []
        else:
            word.append(sign)
    if command:
        yield command


def options(words):
    """The positional words and the `--name value` or `--name=value` options of a command's arguments."""
    positional, named, index = [], {}, 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            positional.extend(words[index:])
            break
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and name not in FLAGS and index < len(words):
            value = words[index]
            index += 1
        named[name.replace("-", "_")] = value
    return positional, named


FLAGS = frozenset(
    "json wait dry-run interactive d yes force terminate apply stat help verbose info-only run fix".split()
)


def parhelia(event):
    """What the call asks of Parhelia: a list of `(verb, arguments)`, whichever door it goes through."""
    tool, given = event.get("tool_name", ""), event.get("tool_input", {})
    if tool != "Bash":
        verb = tool.rpartition("parhelia__")[2]
        return [(verb if verb in ("submit", "recover") else f"{verb} {given.get('action') or ''}", given)]
    found = []
    for name, *words in commands(str(given.get("command", ""))):
        if name != "parhelia":
            continue
        positional, named = options(words)
        if positional:
            verb = positional[0]
            if verb in ("budget", "checkpoint", "session", "task", "hooks", "config") and positional[1:]:
                verb, positional = verb + " " + positional[1], positional[1:]
            found.append((verb, dict(named, words=positional[1:])))
    return found
