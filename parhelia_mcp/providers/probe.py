"""Ask a provider whether it answers now, without waiting for its library: the controller has it loaded, and is asked first.

Where no controller listens, or one with other settings, a process of its own asks: it prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from parhelia_mcp.context import Context
from parhelia_mcp.errors import Problem

DEADLINE_S = 1.5  # of the question to the provider
DOOR = "controller.sock"


def main(name: str) -> None:
    sys.stdout.write(json.dumps(answer(Context(), name)))


def answer(ctx: Context, name: str) -> dict[str, Any]:
    """What the provider says now."""
    try:
        running = ctx.provider(name).list(ctx.owner, deadline=DEADLINE_S)
    except Problem as problem:
        return {"ok": False, "what": f"not reached: {problem.message}", "hint": problem.hint, "code": problem.code}
    return {"ok": True, "what": f"reached; {len(running)} of our sandboxes run there"}


def ask(ctx: Context, name: str, within: float) -> dict[str, Any]:
    """The answer of whoever can give it first. One that takes longer than `within` seconds is none."""
    try:
        return _of_controller(ctx, name, within) or _of_process(ctx, name, within)
    except TimeoutError:
        what = f"did not answer within {within} s"
        return {"ok": False, "what": what, "hint": "https://status.modal.com, then try again"}
    except ValueError:
        return {"ok": False, "what": "the probe gave no answer", "hint": "parhelia doctor"}


@contextmanager
def listening(ctx: Context) -> Iterator[None]:
    """Answer those who `ask`, each in a thread. For the holder of the controller's lock."""
    (ctx.home / DOOR).unlink(missing_ok=True)
    with closing(socket.socket(socket.AF_UNIX)) as door:
        with suppress(OSError), _place(ctx) as place:  # a disk without sockets: a process of its own asks
            door.bind(place)
            (ctx.home / DOOR).chmod(0o600)
            door.listen()
            threading.Thread(target=_serve, args=(ctx, door), daemon=True).start()
        try:
            yield
        finally:
            with suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
            (ctx.home / DOOR).unlink(missing_ok=True)


def _serve(ctx: Context, door: socket.socket) -> None:
    while True:
        try:
            line, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_reply, args=(ctx, line), daemon=True).start()


def _reply(ctx: Context, line: socket.socket) -> None:
    with line, suppress(OSError, ValueError):
        line.settimeout(DEADLINE_S)
        name, settings = json.loads(line.makefile("rb").readline())
        if settings == _settings(ctx):
            line.sendall(json.dumps(answer(ctx, name)).encode())


def _of_controller(ctx: Context, name: str, within: float) -> dict[str, Any] | None:
    """Its answer, or None where none listens that would ask as we would."""
    with socket.socket(socket.AF_UNIX) as line, _place(ctx) as place:
        line.settimeout(within)
        try:
            line.connect(place)
            line.sendall(json.dumps([name, _settings(ctx)]).encode() + b"\n")
            said = line.makefile("rb").read()
        except TimeoutError:
            raise
        except OSError:
            return None
    return json.loads(said) if said else None


def _of_process(ctx: Context, name: str, within: float) -> dict[str, Any]:
    import subprocess

    argv = [sys.executable, "-m", "parhelia_mcp.providers.probe", name]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=within, env=ctx.environ, cwd=ctx.cwd, check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return json.loads(done.stdout)


@contextmanager
def _place(ctx: Context) -> Iterator[str]:
    """The door's path by a descriptor: a socket's own may not be longer than 107 bytes."""
    folder = os.open(ctx.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{DOOR}"
    finally:
        os.close(folder)


def _settings(ctx: Context) -> str:
    """A mark of everything that decides whom a question to Modal goes to, and as whom."""
    named = sorted((key, value) for key, value in ctx.environ.items() if key.startswith("MODAL_"))
    return hashlib.sha256(repr((ctx.user_home, named, ctx.loaded.user.modal)).encode()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1])
