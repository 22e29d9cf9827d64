"""Ask one provider whether it answers, in a process of its own: prints one JSON object."""

from __future__ import annotations

import json
import sys

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem

DEADLINE_S = 1.5


def main(name: str) -> None:
    ctx = Context()
    try:
        running = ctx.provider(name).list(ctx.owner, deadline=DEADLINE_S)
        answer = {"ok": True, "what": f"reached; {len(running)} of our sandboxes run there"}
    except Problem as problem:
        answer = {"ok": False, "what": f"not reached: {problem.message}", "hint": problem.hint, "code": problem.code}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
