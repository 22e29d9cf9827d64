"""A session that something is done to, and the command that the diagnosis prints, typed as a person would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from parhelia_mcp.model import moment, timestamp
from tests.front import PARHELIA, Front, eventually


class Patient:
    """One running session of `front`."""

    def __init__(self, front: Front, *command: str, options: tuple[str, ...] = ()) -> None:
        self.front = front
        self.task = json.loads(front.run("run", "-d", "--json", *options, "--", *command).stdout)["task_id"]

    @classmethod
    def of(cls, front: Front, task: str) -> Patient:
        """A task that was started elsewhere."""
        patient = cls.__new__(cls)
        patient.front, patient.task = front, task
        return patient

    def folder(self, number: int = 1) -> Path:
        return self.front.home / "tasks" / self.task / "sessions" / str(number)

    def state(self) -> dict[str, Any]:
        path = self.folder() / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def working(self) -> Patient:
        """Once its agent runs."""
        eventually(lambda: self.state().get("agent", {}).get("pid"), what="the agent")
        self.front.until(self.task, "running")
        return self

    def signal(self, number: signal.Signals, *who: str) -> None:
        state = self.state()
        for name in who:
            os.kill(state[name]["pid"], number)

    def age_heartbeat(self, seconds: float) -> None:
        """What waiting would show of a runner that no longer beats."""
        state = self.state()
        beat = moment(state["heartbeat_at"]).timestamp() - seconds
        state["heartbeat_at"] = timestamp(moment(state["heartbeat_at"]).fromtimestamp(beat).astimezone())
        (self.folder() / "state.json").write_text(json.dumps(state))

    def diagnosis(self) -> dict[str, Any]:
        """What a full look finds."""
        return self.front.json("recover", self.task, "--action", "diagnose")

    def typed(self, line: str, code: int | None = 0, **env: str) -> str:
        """Run a printed command line in a shell, as it stands."""
        shell_env = {**self.front.env, "PATH": f"{Path(PARHELIA).parent}:{self.front.env['PATH']}", **env}
        done = subprocess.run(
            ["sh", "-c", line], cwd=self.front.cwd, env=shell_env, capture_output=True, timeout=90, check=False
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert "Traceback" not in said
        assert code is None or done.returncode == code, (line, done.returncode, said)
        return said


def told(found: dict[str, Any]) -> set[str]:
    """The causes that were ruled out."""
    return {each["cause"] for each in found["ruled_out"]}
