"""A first run against a real Modal account: records what only that can tell. Costs about a cent, takes some minutes.

    modal setup && .venv/bin/python -m tests.modal_live --out modal-live.json [--skip STEP ...]

Each step's answer, or what went wrong in it, is a key of the output. Nothing is left running.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parhelia_mcp.errors import Problem
from parhelia_mcp.model import Sizes, new_task_id
from parhelia_mcp.providers.base import Handle, Sandbox, SandboxSpec
from parhelia_mcp.providers.modal import Modal, ModalSettings

OWNER = "parhelia-live-run"
LONG = 1500.0  # seconds: the first image takes minutes
SHORT_LIFE = 45.0
LISTENER = """
import socket
door = socket.create_server(("0.0.0.0", 2222)); line, _ = door.accept(); line.sendall(b"hello"); line.close()
"""
FACTS = """
echo "user $(id -u)"; uname -sr; cat /proc/1/comm; git --version; tmux -V; claude --version; df -k / /parhelia
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cgroup.controllers; nproc; cat /proc/sys/kernel/osrelease
"""


class Run:
    """One live run: a provider, the sandbox that most steps use, and what was found."""

    def __init__(self) -> None:
        self.provider = Modal(ModalSettings())
        self.handles: list[Handle] = []
        self.box: Sandbox | None = None

    def start(self, timeout_s: float = 600.0, memory_gb: float = 1.0) -> Sandbox:
        task = new_task_id()
        tags = {"owner": OWNER, "task": task, "session": f"{task}.1"}
        spec = SandboxSpec(name=f"{task}.1", sizes=Sizes(0.25, memory_gb), timeout_s=timeout_s, tags=tags)
        self.handles.append(self.provider.start(spec, deadline=LONG))
        return self.provider.open(self.handles[-1])

    # steps, in order

    def first_start_with_image(self) -> float:
        return _timed(lambda: setattr(self, "box", self.start()))

    def second_start(self) -> float:
        return _timed(self.start)

    def facts(self) -> list[str]:
        self.box.put("warm", b"x")
        return self.box.exec(("sh", "-c", FACTS + "true"), deadline=60).stdout.decode().splitlines()

    def agent_reaches(self) -> list[str]:
        """What the agent's user can do to the runner's files on the volume: nothing but pass."""
        script = (
            f"id -un; touch ~/x /workspace/x && echo own; cat {self.box.task_dir}/warm; touch {self.box.task_dir}/x"
        )
        return self.box.exec(("su", "agent", "-c", f"{script}; true"), deadline=60).stdout.decode().splitlines()

    def exec_seconds(self) -> float:
        return statistics.median(_timed(lambda: self.box.exec(("true",), deadline=30)) for _ in range(10))

    def put_and_get_20_mb_seconds(self) -> list[float]:
        put = _timed(lambda: self.box.put("big", bytes(20 << 20), deadline=120))
        return [put, _timed(lambda: self.box.get("big", Path("/dev/shm/parhelia-live"), deadline=120))]

    def runner_answers_seconds(self) -> float:
        return _timed(lambda: self.box.control({"id": 1, "op": "status", "args": {}}, deadline=30))

    def tunnel(self) -> dict[str, Any]:
        where = self.box.tunnel(2222, deadline=60)
        self.box.exec(("sh", "-c", f"setsid python3 -c '{LISTENER}' >/dev/null 2>&1 &"), deadline=30)
        time.sleep(2)
        with socket.create_connection(where, timeout=20) as line:
            return {"where": where, "said": line.recv(5).decode()}

    def listed_with_tags(self) -> list[dict[str, str]]:
        return [dict(one.tags) for one in self.provider.list(OWNER, deadline=60)]

    def rates(self) -> str:
        """The names that Modal gives its rates now; None where it names none that we know."""
        return str(self.provider.rates(deadline=60))

    def out_of_memory_end(self) -> dict[str, Any]:
        box = self.start(memory_gb=0.5)
        hog = box.exec(("python3", "-c", "b = bytearray(900 << 20); print(len(b))"), deadline=120)
        return {"code": hog.code, "stdout": hog.stdout.decode(), "box": str(box.poll(deadline=30))}

    def end_by_timeout(self) -> str:
        box = self.start(timeout_s=SHORT_LIFE)
        return str(_until(lambda: box.poll(deadline=30), SHORT_LIFE + 120))

    def terminate_seconds_and_end(self) -> dict[str, Any]:
        ended: list[Any] = []
        return {"seconds": _timed(lambda: ended.append(self.box.terminate(deadline=120))), "end": str(ended)}

    def volume_after_the_end_seconds(self) -> float:
        return _timed(lambda: _until(lambda: self.box.read("warm", deadline=30) == b"x", 180))

    def cost_after_the_end(self) -> dict[str, Any]:
        """How late Modal says what a sandbox cost: documented are minutes."""
        said: list[float | None] = []
        late = _timed(lambda: _until(lambda: said.append(self.box.cost(deadline=60)) or said[-1] is not None, 900))
        return {"seconds": late, "usd": said[-1]}

    def gone_from_the_list_seconds(self) -> float:
        name = self.handles[0].name
        listed = lambda: {one.handle.name for one in self.provider.list(OWNER, deadline=60)}  # noqa: E731 -- one use
        return _timed(lambda: _until(lambda: name not in listed(), 120))

    def end_everything(self) -> list[str]:
        return [str(self.provider.open(handle).terminate(deadline=120)) for handle in self.handles]


STEPS = [name for name, member in vars(Run).items() if callable(member) and name not in ("__init__", "start")]


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 3)


def _until(ready: Callable[[], object], patience: float) -> object:
    limit = time.monotonic() + patience
    while not (answer := ready()):
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {patience} s")
        time.sleep(1)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.modal_live")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--skip", action="append", default=[], choices=STEPS)
    options = parser.parse_args()
    run, found = Run(), {}
    for step in STEPS:
        if step in options.skip:
            continue
        try:
            found[step] = getattr(run, step)()
        except (Problem, OSError, AttributeError) as problem:
            found[step] = f"{type(problem).__name__}: {problem}"
        sys.stdout.write(f"{step}: {found[step]}\n")
        sys.stdout.flush()
        options.out.write_text(json.dumps(found, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
