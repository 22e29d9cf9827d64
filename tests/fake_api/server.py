"""The server behind `fake_api`: threads of the test's own process, so that a test reads what arrived as plain data."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fake_api.replies import Reply, Request, events, fail, message, say

TITLE = say('{"title": "A task"}')
LONGEST_GATE = 60.0  # seconds; a gate that no test opens must not hold a thread for ever


class FakeApi:
    """What arrived and what was billed, while the script is played."""

    def __init__(self, script: Sequence[Reply]) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.billed: list[tuple[str, dict[str, Any]]] = []  # (model, usage) of every answer, finished or cut
        self._script = [[reply, reply.times] for reply in script]
        self._lock = threading.Lock()

    @property
    def messages(self) -> list[Request]:
        """The requests for a message, in order of arrival."""
        return [seen for seen in self.requests if seen.path.partition("?")[0] == "/v1/messages"]

    def replace(self, *replies: Reply) -> None:
        """Go on with another script."""
        with self._lock:
            self._script = [[reply, reply.times] for reply in replies]

    def take(self, request: Request) -> Reply:
        """The reply to this request, used up."""
        side = request.headers.get("x-app") == "cli" and not request.body.get("tools")
        with self._lock:
            for entry in self._script:
                reply, left = entry
                if (side and not reply.when) or (reply.when and not reply.when(request)):
                    continue
                if left == 1:
                    self._script.remove(entry)
                entry[1] = max(left - 1, 0)
                return reply
        return TITLE if side else fail(400, "invalid_request_error", "the script has no reply for this request")

    def bill(self, whole: dict[str, Any]) -> int:
        """Note an answer; returns its number."""
        with self._lock:
            self.billed.append((whole["model"], whole["usage"]))
            return len(self.billed)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: FakeApi

    def do_HEAD(self) -> None:
        self._record()
        self._json(404, None)

    def do_POST(self) -> None:
        request = self._record()
        path = request.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            self._json(200, {"input_tokens": len(request.raw) // 4})
        elif path == "/v1/messages":
            self._answer(self.api.take(request), request)
        else:
            self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": path}})

    def _record(self) -> Request:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, raw, time.time())
        self.api.requests.append(request)
        return request

    def _answer(self, reply: Reply, request: Request) -> None:
        if reply.gate:
            reply.gate.wait(LONGEST_GATE)
        time.sleep(reply.delay_s)
        if reply.error:
            self._json(reply.status, {"type": "error", "error": reply.error}, reply.headers)
            return
        whole = message(reply, request.body, len(self.api.billed) + 1)
        self.api.bill(whole)
        if request.body.get("stream"):
            self._stream(reply, whole)
        else:
            self._json(200, whole, reply.headers)

    def _json(self, status: int, value: Any, headers: Any = ()) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Reply, whole: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        pieces = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events(whole)]
        pieces = pieces[: reply.cut_after]
        if reply.split:
            data = b"".join(pieces)
            pieces = [data[start : start + reply.split] for start in range(0, len(data), reply.split)]
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(reply.pace_s)
        if reply.cut_after is None:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True  # no last chunk: the client sees a broken stream

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the test has the requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or is killed, is part of many tests."""


@contextmanager
def fake_api(script: Sequence[Reply], port: int = 0) -> Iterator[FakeApi]:
    """Serve the script on 127.0.0.1 until the block ends."""
    api = FakeApi(script)
    server = _Server(("127.0.0.1", port), type("Connection", (_Connection,), {"api": api}))
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
