"""What can be seen of a session, through channels that fail independently. Collects; judges nothing.

`known` reads what lies on this machine and takes milliseconds. `probed` asks the provider, the sandbox and the network,
all at the same time; every probe is bounded.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

from parhelia_mcp import budget, follow, logbook, task_checkpoints
from parhelia_mcp.context import Context
from parhelia_mcp.diagnosis import inside, surroundings
from parhelia_mcp.diagnosis.facts import Fact, ask
from parhelia_mcp.errors import Problem
from parhelia_mcp.model import State, dollars, moment, now
from parhelia_mcp.providers.base import Sandbox
from parhelia_mcp.store import Session

ANSWER_S = 3.0  # what each probe of the provider gets
STALE_S = 15.0  # a heartbeat comes every 2 s
QUIET_S = 120.0  # without event and output: worth a look
SLOW_START_S = 60.0  # from the sandbox to the runner's first sign of life
TAIL = 200  # events read back


def known(ctx: Context, session: Session) -> dict[str, Fact]:
    """What the database, the ledger, the settings and the journal's copy here say."""
    folder = ctx.session_dir(session.task, session.number)
    return {
        **ask("database", ("state",), lambda: _stored(ctx, session)),
        **ask("ledger", ("remaining_usd",), lambda: _money(ctx, session)),
        **ask("journal", ("quiet_s",), lambda: _journal(session, folder)),
        **ask("configuration", ("config_faults",), lambda: {"config_faults": _faults(ctx)}),
        **ask("checkpoints", ("checkpoints",), lambda: _mirrored(ctx, session)),
        **(ask("state.json", ("heartbeat_age_s",), lambda: _beat(folder)) if session.live else {}),
    }


def suspicious(facts: dict[str, Fact]) -> bool:
    """Whether a living session gives reason to look closer."""

    def value(name: str) -> float:
        return facts[name].value if name in facts and facts[name].failed is None else 0.0

    state = facts["state"].value
    if state == State.STARTING:
        return value("started_s") > SLOW_START_S
    quiet = state in (State.RUNNING, State.WAITING) and value("quiet_s") > QUIET_S
    return value("heartbeat_age_s") > STALE_S or quiet or bool(value("agent_stopped"))


def probed(ctx: Context, session: Session) -> dict[str, Fact]:
    """What the provider, the sandbox and the network answer now."""
    probes = [
        ("checkpoint verification", ("whole_checkpoint",), lambda: _whole(ctx, session)),
        ("this machine", ("home_free_mb",), lambda: surroundings.machine(ctx)),
        ("hook validator", ("hooks_broken",), lambda: surroundings.hooks(ctx)),
    ]
    if session.live and session.handle:
        sandbox = follow.open_sandbox(ctx, session)
        state = f"sessions/{session.number}/state.json"
        probes += [
            (f"{session.provider}: poll", ("sandbox",), lambda: _poll(sandbox)),
            (f"{session.provider}: state.json", ("heartbeat_age_s",), lambda: _remote_beat(sandbox, state)),
            ("control socket", ("control",), lambda: _control(sandbox)),
            ("exec in the sandbox", ("agent_process",), lambda: inside.look(sandbox, session, state)),
            ("ssh port", ("ssh",), lambda: surroundings.ssh(ctx, session, sandbox)),
            ("port 2222 of this machine", ("port_2222",), surroundings.own_port),
        ]
    with ThreadPoolExecutor(len(probes)) as pool:
        found: dict[str, Fact] = {}
        for facts in pool.map(lambda probe: ask(*probe), probes):
            found |= facts
    return found


def _stored(ctx: Context, session: Session) -> dict[str, Any]:
    asked = (session.spec or {}).get("agent", {})
    return {
        "session": session.id,
        "task": session.task,
        "state": str(session.state),
        "reason": str(session.reason) if session.reason else None,
        "detail": session.detail,
        "exit_code": session.exit_code,
        "provider": session.provider,
        "gpu": session.gpu,
        "region": session.region,
        "memory_gb": session.memory_gb or None,
        "agent": asked.get("kind"),
        "has_sandbox": session.handle is not None,
        "age_s": _since(session.created_at),
        "started_s": _since(session.started_at),
        "why_unobserved": session.observed_why if session.live else None,
        "waiting_for": session.waiting_for if session.state is State.WAITING else None,
        "kill_requested_at": session.kill_requested_at,
        "ended_alike": _alike(ctx, session),
    }


def _alike(ctx: Context, session: Session) -> int | None:
    """How many of the newest sessions of the task, up to this one, failed for the same reason in a row."""
    if session.state not in (State.FAILED, State.LOST):
        return None
    before = [other for other in ctx.store.sessions(session.task) if other.number <= session.number]
    same = takewhile(lambda other: (other.state, other.reason) == (session.state, session.reason), reversed(before))
    return len(list(same))


def _money(ctx: Context, session: Session) -> dict[str, Any]:
    standing = budget.standing(ctx)
    return {
        "remaining_usd": dollars(standing.remaining),
        "over_ceiling": standing.spent > standing.ceiling,
        "session_spent_usd": dollars(budget.account(ctx, session=session.id).spent),
        "usd_per_hour": dollars(session.rate_micro),
    }


def _journal(session: Session, folder: Path) -> dict[str, Any]:
    """From the last events: how long it is quiet, what the API said last, what was kept."""
    if not (folder / "events.jsonl").exists():
        return {}
    begin = logbook.tail(folder, TAIL, stream="events")
    events = list(logbook.forward(folder, begin, stream="events"))
    touched = [
        time.time() - (folder / name).stat().st_mtime
        for name in ("stdout.log", "events.jsonl")
        if (folder / name).exists()
    ]
    last = next((event.text for event in reversed(events) if event.kind in ("warning", "limit")), None)
    trying = list(takewhile(lambda event: event.kind == "warning", reversed(events)))
    again = [event.text for event in trying if "the API failed" in event.text]
    kinds = Counter(event.kind for event in events)
    return {
        "quiet_s": round(max(0.0, min(touched)), 1) if session.live else None,
        "last_warning": last,
        "api_retries": len(again),
        "api_says": again[0] if again else None,
        "checkpoints_recorded": kinds["checkpoint"],
    }


def _faults(ctx: Context) -> str | None:
    return str(ctx.loaded.faults[0]) if ctx.loaded.faults else None


def _mirrored(ctx: Context, session: Session) -> dict[str, Any]:
    """What this machine has of them. That it has none says nothing about a disk elsewhere."""
    found = _checkpoints(ctx, session)
    here = session.handle is None or ctx.provider(session.provider).properties.local_disk
    return found if here or found["checkpoints"] else {}


def _checkpoints(ctx: Context, session: Session) -> dict[str, Any]:
    kept = task_checkpoints.of_session(ctx, session)
    newest = kept[-1] if kept else None
    until = moment(session.ended_at) if session.ended_at else now()
    return {
        "checkpoints": len(kept),
        "newest_checkpoint": newest.id if newest else None,
        "since_checkpoint_s": max(0, int((until - moment(newest.created_at)).total_seconds())) if newest else None,
    }


def _whole(ctx: Context, session: Session) -> dict[str, Any]:
    """Every checkpoint, wherever it lies: the newest that verifies, and whether a newer one does not."""
    try:
        whole = task_checkpoints.newest(ctx, session)
    except Problem as problem:
        if problem.code == "no-checkpoint":
            damaged = task_checkpoints.of_session(ctx, session)
            return {**_checkpoints(ctx, session), "damaged_checkpoints": len(damaged)}
        raise
    newer = [one for one in task_checkpoints.of_session(ctx, session) if one.created_at > whole.created_at]
    return {**_checkpoints(ctx, session), "whole_checkpoint": whole.id, "damaged_checkpoints": len(newer)}


def _beat(folder: Path) -> dict[str, Any]:
    path = folder / "state.json"
    return {**_aged(path.read_bytes()), **inside.stopped(path)} if path.exists() else {}


def _remote_beat(sandbox: Sandbox, path: str) -> dict[str, Any]:
    data = sandbox.read(path, deadline=ANSWER_S)
    if not data:
        raise ValueError("the runner has not written it")
    return _aged(data)


def _aged(data: bytes) -> dict[str, Any]:
    state = json.loads(data)
    return {"heartbeat_age_s": _since(state["heartbeat_at"]), "phase": state["phase"]}


def _poll(sandbox: Sandbox) -> dict[str, Any]:
    ended = sandbox.poll(deadline=ANSWER_S)
    return {"sandbox": "runs" if ended is None else f"ended ({ended.cause or ended.code})"}


def _control(sandbox: Sandbox) -> dict[str, Any]:
    answer = sandbox.control({"id": "look", "op": "status", "args": {}}, deadline=ANSWER_S)
    return {"control": "answers" if answer.get("ok") else str(answer.get("error"))}


def _since(text: str | None) -> float | None:
    return round(max(0.0, (now() - moment(text)).total_seconds()), 1) if text else None
