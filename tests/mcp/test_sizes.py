"""No answer grows with the number of tasks: the same bounds hold for one, a hundred and ten thousand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp import Client

from parhelia_mcp.context import Context
from parhelia_mcp.mcp_server.server import build
from tests.front import Front
from tests.mcp.talk import call, talk

BOUNDS = {  # bytes of the JSON that the model reads
    "status": ({}, 9_000),
    "status since": ({"since": "0"}, 9_000),
    "status of five": ({"limit": 5}, 3_500),
    "status failed": ({"state": "failed"}, 8_000),
    "status one": ({"id": "task-00000001"}, 3_500),
    "budget": ({}, 1_500),
    "budget history": ({"action": "history"}, 4_000),
}
TASK = "INSERT INTO tasks (id, created_at, prompt, provider, request) VALUES (?, ?, ?, 'local', '{}')"
SESSION = """INSERT INTO sessions (id, task, number, latest, state, reason, detail, provider, cpu, memory_gb, timeout_s,
    tokens_micro, rate_micro, created_at, settled_at, last_activity)
    VALUES (?, ?, 1, 1, ?, ?, ?, 'local', 1, 0, 60, 0, 0, ?, ?, ?)"""


def filled(front: Front, count: int) -> Context:
    """A user with so many ended tasks, each with a long prompt, a long story and a cost, put into the database."""
    ctx = Context(front.env, front.cwd)
    with ctx.store.transaction() as db:
        for number in range(count):
            task, at = f"task-{number:08d}", f"2026-11-{1 + number % 20:02d}T00:00:00.000Z"
            state, reason = ("failed", "agent-error") if number % 3 else ("completed", "agent-exit")
            db.execute(TASK, (task, at, f"task number {number}: " + "wörds " * 500))
            db.execute(SESSION, (f"{task}.1", task, state, reason, "why " * 500, at, at, "did " * 500))
            db.execute(
                "INSERT INTO ledger (at, task, session, kind, source, micro_usd, key) VALUES (?, ?, ?, 'charge', 'tokens', 1000, 'k')",
                (at, task, f"{task}.1"),
            )
            db.execute(
                "INSERT INTO accounts (session, source, task, charged) VALUES (?, 'tokens', ?, 1000)",
                (f"{task}.1", task),
            )
    return ctx


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_answers_stay_small(front: Front, count: int) -> None:
    ctx = filled(front, max(count, 2))

    async def story(client: Client) -> dict[str, Any]:
        return {name: await call(client, name.split()[0], **given) for name, (given, _) in BOUNDS.items()}

    for name, got in talk(build(ctx), story).items():
        assert len(json.dumps(got, ensure_ascii=False).encode()) <= BOUNDS[name][1], name
