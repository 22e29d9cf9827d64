"""What goes on inside a sandbox, seen past the runner: the process table, the disk, the meter's book, the screen, the GPU."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from parhelia_mcp import processes
from parhelia_mcp.errors import Unreachable
from parhelia_mcp.plain import line
from parhelia_mcp.providers.base import Sandbox
from parhelia_mcp.store import Session

LOOK_S = 6.0
BETWEEN_S = 0.5  # between the two looks that CPU is counted in
MARK = "--parhelia--"


def stopped(state_file: Path) -> dict[str, Any]:
    """Whether the agent of a session of this machine is held by a signal now; for one elsewhere, nothing."""
    state = json.loads(state_file.read_bytes())
    runner = state.get("runner")
    if not runner or not processes.alive(processes.Identity(**runner)):
        return {}
    row = processes.stat(state.get("agent", {}).get("pid") or 0)
    return {"agent_stopped": row is not None and row.state in "Tt"}


def look(sandbox: Sandbox, session: Session, state_path: str) -> dict[str, Any]:
    """One program in the sandbox that looks at everything. Raises Unreachable where nothing runs there any more."""
    state = json.loads(sandbox.read(state_path, deadline=LOOK_S / 2) or b"{}")
    agent, runner = state.get("agent", {}).get("pid"), (state.get("runner") or {}).get("pid")
    done = sandbox.exec(("sh", "-c", _script(sandbox, session, state)), deadline=LOOK_S)
    parts = done.stdout.decode(errors="replace").split(MARK)
    if len(parts) < 6:
        raise Unreachable("exec-failed", f"The look inside ended early: {line(done.stderr.decode(errors='replace'))}")
    first, second = _table(parts[0]), _table(parts[1])
    return {
        **_processes(first, second, agent, runner),
        "disk_free_mb": _number(parts[2]),
        "requests_open": _open_requests(parts[3]),
        "screen": line(parts[4], 300) or None,
        "tmux": ("answers" if parts[4].strip() else "gone") if state.get("tmux") else None,
        "gpu_use_percent": _number(parts[5]),
    }


def _script(sandbox: Sandbox, session: Session, state: dict[str, Any]) -> str:
    book = shlex.quote(f"{sandbox.task_dir}/sessions/{session.number}/meter.jsonl")
    socket = (state.get("tmux") or {}).get("socket")
    screen = (
        f"timeout 2 tmux -S {shlex.quote(socket)} capture-pane -p -t parhelia:0 2>/dev/null | tail -n 12; timeout 2 tmux -S {shlex.quote(socket)} has-session -t parhelia 2>/dev/null && echo '[tmux]'"
        if socket
        else ":"
    )
    gpu = (
        "timeout 2 nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits | sort -n | tail -n 1"
        if session.gpu
        else ":"
    )
    table = "cat /proc/[0-9]*/stat 2>/dev/null"
    steps = [
        f"{table}; sleep {BETWEEN_S}",
        table,
        "df -Pm . | awk 'NR==2 {print $4}'",
        f"tail -c 65536 {book} 2>/dev/null",
        screen,
        gpu,
    ]
    return f"; echo {MARK}; ".join(steps)


def _table(text: str) -> dict[int, tuple[int, str, int, int]]:
    """pid -> parent, state, ticks of CPU, pages of memory."""
    rows = {}
    for row in text.splitlines():
        head, _, tail = row.rpartition(") ")
        pid, _, _ = head.partition(" (")
        part = tail.split()
        if pid.isdigit() and len(part) > 21:
            rows[int(pid)] = (int(part[1]), part[0], int(part[11]) + int(part[12]), int(part[21]))
    return rows


def _processes(first: dict, second: dict, agent: int | None, runner: int | None) -> dict[str, Any]:
    tree = _below(second, agent) if agent else set()
    ticks = sum(second[pid][2] - first[pid][2] for pid in tree if pid in first)
    held = [pid for pid in tree if second[pid][1] in "Tt" and first.get(pid, second[pid])[1] in "Tt"]
    return {
        "agent_process": _state(second, agent, agent in held) if agent else None,
        "agent_cpu": round(ticks / processes.TICKS / BETWEEN_S, 2) if tree else None,
        "agent_memory_gb": round(sum(second[pid][3] for pid in tree) * 4096 / (1 << 30), 2) if tree else None,
        "runner_process": _state(second, runner, runner in second and second[runner][1] in "Tt") if runner else None,
    }


def _state(rows: dict, pid: int, held: bool) -> str:
    if pid not in rows or rows[pid][1] in "ZX":
        return "gone"
    return "stopped" if held else "runs"


def _below(rows: dict, root: int) -> set[int]:
    found = {root} & rows.keys()
    while new := {pid for pid, row in rows.items() if row[0] in found} - found:
        found |= new
    return found


def _open_requests(text: str) -> int | None:
    """How many requests to the API are under way, by the end of the meter's book."""
    opened: set[int] = set()
    for row in text.splitlines():
        try:
            entry = json.loads(row)
        except ValueError:
            continue  # the first line may be cut
        if "open" in entry:
            opened.add(entry["open"])
        opened.discard(entry.get("close"))
    return len(opened) if text.strip() else None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
