"""A process of its own for tests that kill one: python -m tests.checkpoint.victim STORE WORKSPACE ACTION."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from parhelia_mcp.checkpoint.restore import restore
from parhelia_mcp.checkpoint.retention import delete, gc, retain
from parhelia_mcp.checkpoint.store import Store, list_all
from parhelia_mcp.errors import Problem
from parhelia_mcp.spec import CheckpointPolicy
from tests.checkpoint.trees import take


def act(store: Store, workspace: Path, action: str) -> None:
    if action == "create":
        print(take(store, workspace).id)
    elif action == "create-now":
        print(take(store, workspace, wait_s=0).id)
    elif action == "restore":
        restore(store, list_all(store)[-1], workspace, force=True)
    elif action == "delete":
        print(delete(store, [list_all(store)[0].id]))
    elif action == "gc":
        print(gc(store))
    elif action == "retain":
        print(retain(store, CheckpointPolicy(max_per_session=1), datetime.now(UTC)))


if __name__ == "__main__":
    try:
        act(Store(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3])
    except Problem as problem:
        print(problem.code, problem, file=sys.stderr)
        sys.exit(problem.exit_code)
