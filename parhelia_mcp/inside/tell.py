"""Tells the runner what happens in the session's terminal: the hooks of tmux and of the full-screen client run it.

    python -I -S tell.py SOCKET event            the event of the client on stdin; prints what the client is to do
    python -I -S tell.py SOCKET left | take-over [now]

Standard library only. A runner that does not answer holds nobody up.
"""

import contextlib
import json
import socket
import sys


def ask(path, op, args):
    """The runner's answer to one request; empty where there is none."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(path)
        channel.sendall(json.dumps({"id": op, "op": op, "args": args}).encode() + b"\n")
        with channel.makefile("rb") as lines:
            return json.loads(lines.readline() or b"{}")


def main(path, op, *words):
    args = json.loads(sys.stdin.buffer.read()) if op == "event" else {"now": "now" in words}
    with contextlib.suppress(OSError, ValueError):
        answer = ask(path, op, args)
        if output := (answer.get("result") or {}).get("output"):
            sys.stdout.write(json.dumps(output) + "\n")
        elif op == "take-over" and not answer.get("ok"):
            sys.stdout.write(answer["error"]["message"] + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
