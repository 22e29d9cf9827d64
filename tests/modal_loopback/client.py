"""The loopback as a test uses it: a process to start, pull levers of, freeze and end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Loopback:
    """A running server; `env` is what makes the SDK in another process talk to it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        port_file = folder / "port.json"
        with (folder / "server.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.modal_loopback.keeper", "--state", str(folder / "state")]
            self.process = subprocess.Popen(
                [*command, "--port-file", str(port_file), *options],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        limit = time.monotonic() + 60
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError((folder / "server.log").read_text())
            time.sleep(0.01)
        ports = json.loads(port_file.read_text())
        self._port_file = port_file
        self.http = f"http://127.0.0.1:{ports['http']}"
        self.isolated: bool = ports["isolated"]
        self.state = folder / "state"
        self.env = {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{ports['grpc']}",
            "MODAL_TOKEN_ID": "ak-loopback",
            "MODAL_TOKEN_SECRET": "as-loopback",
            "MODAL_CONFIG_PATH": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }

    def faults(self, *rules: dict[str, Any]) -> None:
        """Put these rules in force instead of the ones before; none: nothing fails."""
        self._post("/faults", list(rules))

    def record(self) -> dict[str, Any]:
        """`seen` (RPC -> count), `unimplemented`, `living` (names) and `sandboxes`."""
        with self._opened(f"{self.http}/calls") as answer:
            return json.load(answer)

    def faults_left(self) -> list[dict[str, Any]]:
        """The rules that have not hit as often as they were to."""
        rules = json.loads((self.state / "faults.json").read_text())
        return [rule for rule in rules if rule["times"] > 0]

    @property
    def pid(self) -> int:
        """The server, which is another process after it was killed."""
        return json.loads(self._port_file.read_text())["pid"]

    def vanish(self, name: str) -> None:
        self._post(f"/vanish/{name}")

    def cut(self) -> None:
        """Break the lines through all tunnels; new ones can be made at once."""
        self._post("/cut")

    def machines(self, present: bool) -> None:
        self._post(f"/machines/{'on' if present else 'off'}")

    def secret(self, name: str, **keys: str) -> None:
        self._post(f"/secret/{name}", keys)

    def rates(self, **rates: str) -> None:
        """Charge these rates from now on, and know no others."""
        self._post("/rates", rates)

    def egress(self, port: int) -> None:
        """Let sandboxes that start from now on reach this port of the machine."""
        self._post(f"/egress/{port}")

    def crowd(self, owner: str, count: int) -> None:
        """Have `count` sandboxes of `owner` that run nothing."""
        self._post(f"/crowd/{owner}/{count}")

    def expire(self) -> None:
        """Let the time of every snapshot be over."""
        self._post("/expire")

    def _post(self, path: str, body: Any = None) -> None:
        request = urllib.request.Request(self.http + path, data=json.dumps(body).encode(), method="POST")
        self._opened(request).close()

    def _opened(self, request: Any) -> Any:
        """The answer, also of a server that is just coming back."""
        limit = time.monotonic() + 60
        while True:
            try:
                return urllib.request.urlopen(request, timeout=10)
            except OSError:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def in_lanes(directory: Path, many: int, lanes: int, work: Callable[[int, Loopback], None]) -> None:
    """Do `work(0)` to `work(many - 1)`, each lane of them on a Modal of its own: most of it is waiting."""

    def lane(number: int) -> None:
        loopback = Loopback(directory / f"modal{number}", "--plain")
        try:
            for turn in range(number, many, lanes):
                work(turn, loopback)
        finally:
            loopback.stop()

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(lane, range(lanes)))
