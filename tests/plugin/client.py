"""The real Claude Code in print mode against a scripted model on loopback: what it ran, was told and asked for."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests import setup

Call = tuple[str, Mapping[str, Any]]  # tool name and input


@dataclass(frozen=True)
class Run:
    code: int
    stderr: str
    events: list[dict[str, Any]]
    requests: list[dict[str, Any]]

    @property
    def init(self) -> dict[str, Any]:
        return next(event for event in self.events if event.get("subtype") == "init")

    @property
    def result(self) -> dict[str, Any]:
        return next(event for event in reversed(self.events) if event["type"] == "result")

    @property
    def told(self) -> str:
        """Everything the model was sent, as text."""
        return json.dumps([request["messages"] for request in self.requests], ensure_ascii=False)

    def tool_results(self) -> list[str]:
        """What the model read as the result of each call, in order."""
        return [_text(block.get("content")) for block in _blocks(self.requests[-1]) if block["type"] == "tool_result"]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _blocks(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for message in request["messages"]:
        if isinstance(message["content"], list):
            yield from message["content"]


def _reply(request: Mapping[str, Any], calls: list[Call]) -> dict[str, Any]:
    """The next scripted call, or the last word once every call has its result."""
    done = sum(block["type"] == "tool_result" for block in _blocks(request))
    if not request.get("tools") or done >= len(calls):
        return {"type": "text", "text": "all done"}
    name, given = calls[done]
    return {"type": "tool_use", "id": f"toolu_{done:04}", "name": name, "input": dict(given)}


def _events(block: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-8", "content": []}
    yield {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None, "usage": usage}}
    if block["type"] == "text":
        opened, delta, stop = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}, "end_turn"
    else:
        opened, stop = {**block, "input": {}}, "tool_use"
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield {"type": "content_block_start", "index": 0, "content_block": opened}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}
    yield {"type": "message_stop"}


@contextmanager
def scripted_api(calls: list[Call]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Base URL of a Messages API that makes `calls` one after the other, and the requests it received."""
    requests: list[dict[str, Any]] = []

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append(request)
            frames = (
                f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _events(_reply(request, calls))
            )
            body = "".join(frames).encode()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(home: Path, url: str = "http://127.0.0.1:9") -> dict[str, str]:
    """All that the client may see of this machine."""
    return {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",
    }


def run_claude(
    home: Path,
    project: Path,
    calls: list[Call],
    *args: str,
    prompt: str = "go",
    env: Mapping[str, str] | None = None,
    bypass: bool = True,
) -> Run:
    """One headless run of the client in `project` with `home` as its home; it ends by itself."""
    home.mkdir(parents=True, exist_ok=True)
    project.mkdir(parents=True, exist_ok=True)
    mode = ["--dangerously-skip-permissions"] if bypass else []
    command = [setup.claude(), "-p", "--output-format", "stream-json", "--verbose", *mode, *args, "--", prompt]
    with scripted_api(calls) as (url, requests):
        done = subprocess.run(
            command,
            cwd=project,
            env={**environment(home, url), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Run(done.returncode, done.stderr, events, requests)
