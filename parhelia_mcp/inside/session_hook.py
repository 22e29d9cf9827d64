"""The hook inside a session: a checkpoint before a command that can destroy work.

Started by Claude Code as `python -I -S session_hook.py` with the event on stdin; standard library only. It sends one
JSON line to the runner's socket, whose path is in `PARHELIA_CONTROL`, and holds the call until the answer: op
`checkpoint`, args `{trigger: "risky", tool, command}`. The command then runs; where no checkpoint could be taken the
agent is told so.

This file only looks for words that could matter, since nearly every call has none: all else is imported after that.
"""

import os
import sys

TRIGGERS = (
    b"rm", b"delete", b"clean", b"shred", b"truncate", b"mkfs", b"wipefs", b"dd ", b"chmod", b"chown", b"prune",
    b"destroy", b"apply", b"drop", b"DROP", b"DELETE", b"TRUNCATE", b"mv ", b"reset", b"checkout", b"switch",
    b"restore", b"push", b"branch", b"tag", b"stash", b"worktree", b"reflog", b"update-ref", b"rebase", b"filter-",
    b" gc", b"Delete", b"Drop", b"Truncate", b"rimraf", b"os.remove",
)  # fmt: skip


def read() -> bytes:
    parts = []
    while part := os.read(0, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def concerns(data: bytes) -> bool:
    """Whether the event could be one to act on, by its bytes alone."""
    _, found, given = data.partition(b'"tool_input":')
    return any(word in (given if found else data) for word in TRIGGERS)


def main() -> None:
    data = read()
    if concerns(data):
        sys.path.append(__file__.rpartition("/parhelia_mcp/")[0])
        from parhelia_mcp.inside.session_call import answer

        sys.stdout.write(answer(data))
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
