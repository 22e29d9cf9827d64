"""A meter in front of an upstream: in a thread of the test, or as a process of its own that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import httpx2 as httpx

from parhelia_mcp.inside.meter import Credential, Meter

KEY = "sk-ant-the-real-key-of-the-user"
TOKEN = "token-of-the-session"
OPUS = "claude-opus-4-8"


def body(**changes: Any) -> dict[str, Any]:
    """A small request for a message."""
    return {"model": OPUS, "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]} | changes


def post(url: str, asked: Any = None, token: str = TOKEN, path: str = "/v1/messages?beta=true", **headers: str):
    auth = {"authorization": f"Bearer {token}", **headers}
    return httpx.post(url + path, json=asked or body(), headers=auth, timeout=30)


class Running:
    """A served meter, and what it told the runner."""

    def __init__(self, url: str, book: Path, **options: Any) -> None:
        self.book = book
        self.told: list[dict[str, Any]] = []
        options = {"credential": Credential("api-key", KEY), "cap_micro": None, "prices": {}} | options
        self.meter = Meter(upstream=url, token=TOKEN, book=book, emit=self._tell, **options)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.meter.port}"

    def _tell(self, kind: str, **fields: Any) -> None:
        self.told.append({"kind": kind, **fields})


@contextmanager
def metered(url: str, book: Path, **options: Any) -> Iterator[Running]:
    """Serve a meter in a thread until the block ends."""
    running = Running(url, book, **options)
    with anyio.from_thread.start_blocking_portal() as portal:
        served, _ = portal.start_task(running.meter.serve)
        try:
            yield running
        finally:
            served.cancel()


@contextmanager
def meter_process(
    url: str, book: Path, cap_micro: int, port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], int, list]]:
    """A meter in a process of its own, its port, and what it told before it listened; it tells more on its output."""
    argv = [sys.executable, "-m", "tests.meter.running", url, str(book), str(cap_micro), str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            replayed = []
            while "kind" in (line := json.loads(process.stdout.readline())):
                replayed.append(line)
            yield process, line["port"], replayed
        finally:
            process.kill()


async def _main(url: str, book: str, cap_micro: str, port: str) -> None:
    def tell(kind: str, **fields: Any) -> None:
        print(json.dumps({"kind": kind, **fields}), flush=True)

    upstream = {"upstream": url, "credential": Credential("api-key", KEY), "token": TOKEN}
    meter = Meter(**upstream, book=Path(book), cap_micro=int(cap_micro), prices={}, emit=tell)
    async with anyio.create_task_group() as tasks:
        bound = await tasks.start(lambda task_status: meter.serve(port=int(port), task_status=task_status))
        print(json.dumps({"port": bound}), flush=True)


if __name__ == "__main__":
    anyio.run(_main, *sys.argv[1:])
