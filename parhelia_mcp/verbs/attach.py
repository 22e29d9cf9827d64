"""Be in the room: the session's terminal on this one, and leaving without losing anything."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from parhelia_mcp import budget, controller, follow, model
from parhelia_mcp.context import Context
from parhelia_mcp.errors import LocalFault, Problem, Refused, Unreachable, Usage
from parhelia_mcp.model import State, dollars
from parhelia_mcp.plain import clean
from parhelia_mcp.ssh import client, keys
from parhelia_mcp.ssh.port import WANTED, LocalPort
from parhelia_mcp.store import Session
from parhelia_mcp.verbs import recover, resume

READY_S = 20.0  # from `running` until its ssh server listens
FIRST_S = 20.0  # how long the first connection is tried
AGAIN_S = 600.0  # how long a lost one is tried again
STEADY_S = 1.0  # a connection that was made and lived this long was a good one
CHECKPOINT_S = 60.0
FAILED = 255  # ssh's own exit code; every other one comes from the session


class Request(BaseModel, extra="forbid"):
    """Open the terminal of a session; Ctrl-b d leaves it running."""

    id: Annotated[str, Field(description="Task or session")]
    verbose: bool = False
    info_only: bool = False


class Result(BaseModel):
    task_id: str
    session_id: str
    state: str
    ssh: str
    checkpoint: dict[str, Any] | None = None
    spent_usd: float
    remaining_usd: float | None = None
    time_left_s: int | None = None
    notes: list[str] = []
    next: str


@dataclass(frozen=True, slots=True)
class Room:
    """A session that can be entered: its keys and the command that opens its terminal."""

    session: Session
    keys: keys.Keys
    remote: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a person can choose who came to a session that has ended: names of actions of recover."""

    what: str
    choices: list[str]


Choose = Callable[[Offer], str | None]


class Steps:
    """Says what is being done; the small steps with their times only where they were asked for."""

    def __init__(self, show: Callable[[str], None], verbose: bool) -> None:
        self._show, self._verbose, self._began = show, verbose, time.monotonic()

    def say(self, text: str) -> None:
        self._show(text)

    def step(self, text: str) -> None:
        if self._verbose:
            self._show(f"{time.monotonic() - self._began:7.3f} s  {text}")


def run(ctx: Context, request: Request, show: Callable[[str], None], choose: Choose | None = None) -> Result:
    """Attach this terminal until the person leaves or the session ends. `show` gets each line about how it goes.

    With `choose` a session that has ended can be gone on with, and the next one is attached to.
    Raises Refused `session-ended` with the way to get in all the same; Unreachable or Refused for what ssh met.
    """
    steps = Steps(show, request.verbose)
    session = ctx.store.find(request.id)
    if session.live:
        session = follow.advance(ctx, session)
    if not session.live:
        session = _next(ctx, session, choose if ctx.on_terminal and not request.info_only else None)
    if not request.info_only and not ctx.on_terminal:
        raise Usage("no-terminal", "attach needs a terminal.", f"parhelia attach {request.id} --info-only")
    session = _running(ctx, session, steps, wait=not request.info_only)
    room = _room(ctx, session, steps)
    if request.info_only:
        config = client.configure(room.keys, *_tunnel(ctx, session))
        return _result(ctx, room, client.command(config, session.id, [room.remote], terminal=True))
    with Window() as window, closing(LocalPort(lambda: _tunnel(ctx, session))) as port:
        if port.moved:
            steps.say(f"port {WANTED} is in use on this machine; {port.port} is used instead")
        steps.step(f"127.0.0.1:{port.port} leads to the session")
        command = client.command(
            client.configure(room.keys, "127.0.0.1", port.port), session.id, [room.remote], terminal=True
        )
        _stay(ctx, room, command, port.port, steps, window)
        checkpoint, notes = _checkpoint(ctx, room, steps)
    return _result(ctx, room, command, checkpoint, notes)


def _next(ctx: Context, session: Session, choose: Choose | None) -> Session:
    """The session that a person lets go on in place of one that has ended. Raises Refused where they leave it."""
    ended = _ended(session)
    if choose is None:
        raise ended
    if session.state in (State.FAILED, State.LOST):
        seen = recover.run(ctx, recover.Request(id=session.id, action="diagnose"))
        action = choose(Offer(f"{_how(session)}. {clean(seen.what)}", seen.choices)) if seen.choices else None
        if action:
            recover.run(ctx, recover.Request.model_validate({"id": session.id, "action": action}), by_person=True)
    else:
        action = choose(Offer(ended.message, ["resume"]))
        if action:
            resume.run(ctx, resume.Request(id=session.id), by_person=True)
    if not action:
        raise ended
    return ctx.store.newest(session.task)


def _running(ctx: Context, session: Session, steps: Steps, *, wait: bool) -> Session:
    """The session once it runs; with `wait` however long it may still come. Raises Refused where it has ended."""
    said, began = None, time.monotonic()
    while True:
        if not session.live:
            raise _ended(session)
        session = follow.advance(ctx, session)
        if session.state in (State.RUNNING, State.WAITING):
            steps.step(f"{session.id} is {session.state}")
            return session
        now = f"{session.id} is {session.state}" + (f": {clean(session.observed_why)}" if session.observed_why else "")
        if session.live and not wait:
            raise Unreachable("session-not-ready", f"{now}.", f"parhelia attach {session.task} --info-only")
        if session.live and now != said:
            steps.say(f"{now}; waiting for it (Ctrl-C leaves, it goes on)")
            controller.ensure(ctx)
        said = now
        _pause(began)


def _pause(began: float) -> None:
    """Between two looks: short at first, then as a provider that is far away can bear."""
    time.sleep(0.05 if time.monotonic() - began < 3 else 0.5)


def _how(session: Session) -> str:
    return f"{session.id} is {session.state}" + (f" ({session.reason})" if session.reason else "")


def _ended(session: Session) -> Problem:
    detail = f": {clean(session.detail)}" if session.detail else "."
    if session.state is State.COMPLETED:
        what = f"{session.id} has completed{detail} Its work is a branch of your repository."
        return Refused(
            "session-ended", what, f"parhelia pull {session.task}, or go on with it: parhelia resume {session.task}"
        )
    if session.state is State.KILLED:
        return Refused("session-ended", f"{session.id} was killed{detail}", f"parhelia resume {session.task}")
    return Refused("session-ended", f"{_how(session)}{detail}", f"parhelia recover {session.task}")


def _room(ctx: Context, session: Session, steps: Steps) -> Room:
    """What is needed to enter, once the session's ssh server listens."""
    own = keys.of(ctx.home, session.id)
    if own is None:
        what = f"The keys of {session.id} are not on this machine: it was started from another one."
        raise LocalFault("keys-missing", what, "attach from the machine that started it")
    began = time.monotonic()
    while not (state := _state(ctx, session)).get("ssh"):
        if time.monotonic() > began + READY_S:
            what = f"The ssh server of {session.id} did not start within {READY_S:.0f} s. The session goes on."
            raise Unreachable("ssh-not-ready", what, f"parhelia logs {session.id} --grep ssh")
        _pause(began)
    steps.step("its ssh server listens")
    if tmux := state.get("tmux"):
        remote = f"exec tmux -u -S {shlex.quote(tmux['socket'])} attach-session -t ={shlex.quote(tmux['session'])}"
        return Room(session, own, remote, ())
    return Room(
        session, own, 'exec "${SHELL:-/bin/sh}" -l', ("there is no tmux in the session: this was a plain shell",)
    )


def _state(ctx: Context, session: Session) -> Mapping[str, Any]:
    """The runner's state.json; empty where it has none yet."""
    data = follow.open_sandbox(ctx, session).read(f"sessions/{session.number}/state.json")
    return json.loads(data) if data else {}


def _tunnel(ctx: Context, session: Session) -> tuple[str, int]:
    return follow.open_sandbox(ctx, session).tunnel(WANTED)


def _stay(ctx: Context, room: Room, command: list[str], port: int, steps: Steps, window: Window) -> None:
    """Be connected until the person leaves or the session ends; a line that breaks is joined again."""
    connect = _by_ssh if shutil.which("ssh") else _without_ssh
    if connect is _without_ssh:
        steps.say("there is no ssh on this machine: the built-in client is used")
    good, tries, limit = time.monotonic(), 0, FIRST_S
    while True:
        began = time.monotonic()
        steps.step("connecting")
        problem = connect(room, command, port, window)
        lasted = time.monotonic() - began
        steps.step(f"the connection ended after {lasted:.1f} s")
        if problem is None or window.closed or not ctx.store.session(room.session.id).live:
            return
        if problem.code == client.CUT and lasted > STEADY_S:
            good, tries, limit = time.monotonic(), 0, AGAIN_S
        _plain_screen()
        if not client.passing(problem):
            raise problem
        if (tried := time.monotonic() - good) > limit:
            raise Unreachable(problem.code, f"{problem.message} It was tried for {tried:.0f} s.", problem.hint)
        pause = min(5.0, 0.2 * 2**tries)
        tries += 1
        steps.say(f"{problem.message} Trying again in {pause:.1f} s ({tries}); Ctrl-C leaves.")
        time.sleep(pause)
        follow.advance(ctx, ctx.store.session(room.session.id))


def _plain_screen() -> None:
    """Undo what a terminal program that was cut off could not: its screen, its mouse, its paste brackets."""
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m\r")
        sys.stdout.flush()


def _by_ssh(room: Room, command: list[str], port: int, window: Window) -> Problem | None:
    """None where the session's side ended it; else why the system's ssh could not go on."""
    with subprocess.Popen(command, stderr=subprocess.PIPE) as window.ssh:
        words = window.ssh.communicate()[1].decode(errors="replace")
    if window.ssh.returncode not in (FAILED, -signal.SIGPIPE):
        return None
    return client.failure(words, room.keys) or Unreachable(
        client.CUT,
        f"The connection to {room.session.id} was lost{': ' + clean(words.strip()) if words.strip() else '.'}",
        f"parhelia attach {room.session.task}",
    )


def _without_ssh(room: Room, command: list[str], port: int, window: Window) -> Problem | None:
    from parhelia_mcp.ssh import without

    try:
        without.attach(room.keys, port, room.remote)
    except Problem as problem:
        return problem
    return None


class Window:
    """The terminal's window. Closing it is a way to leave: it ends the connection, not us, so that the checkpoint is taken."""

    def __init__(self) -> None:
        self.closed = False
        self.ssh: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Window:
        self._before = signal.signal(signal.SIGHUP, self._hung_up)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGHUP, self._before)

    def _hung_up(self, number: int, frame: object) -> None:
        self.closed = True
        if self.ssh is not None:  # the kernel tells only the first process of a terminal
            self.ssh.send_signal(signal.SIGHUP)


def _checkpoint(ctx: Context, room: Room, steps: Steps) -> tuple[dict[str, Any] | None, list[str]]:
    """The checkpoint taken because somebody left, or the note that says why there is none."""
    session = follow.advance(ctx, ctx.store.session(room.session.id))
    if not session.live:
        return None, []
    asked = {"id": str(uuid.uuid4()), "op": "checkpoint", "args": {"trigger": "detach"}}
    try:
        reply = follow.open_sandbox(ctx, session).control(asked, deadline=CHECKPOINT_S)
    except Unreachable as problem:
        return None, [f"no checkpoint was taken: {problem.message}"]
    if not reply.get("ok"):
        return None, [f"no checkpoint was taken: {clean(str((reply.get('error') or {}).get('message', 'refused')))}"]
    steps.step("checkpoint taken")
    return _told(reply["result"]), []


def _told(made: Mapping[str, Any]) -> dict[str, Any]:
    """What the runner says of a checkpoint, as far as it has the form that it should have."""
    form = {"checkpoint_id": str, "files": int, "bytes": int, "consistent": bool}
    return {name: told if isinstance(told := made.get(name), kind) else kind() for name, kind in form.items()}


def _result(
    ctx: Context,
    room: Room,
    command: list[str],
    checkpoint: dict[str, Any] | None = None,
    notes: list[str] | None = None,
) -> Result:
    session = ctx.store.session(room.session.id)
    spent = budget.account(ctx, session=session.id)
    left = (follow.ends_at(session) - model.now()).total_seconds() if session.started_at and session.live else None
    costs = session.rate_micro or session.tokens_micro
    return Result(
        task_id=session.task,
        session_id=session.id,
        state=str(session.state),
        ssh=shlex.join(command),
        checkpoint=checkpoint,
        spent_usd=dollars(spent.spent),
        remaining_usd=dollars(spent.reserved) if session.live and costs else None,
        time_left_s=max(0, int(left)) if left is not None else None,
        notes=[*room.notes, *(notes or [])],
        next=f"parhelia attach {session.task}" if session.live else str(_ended(session).hint),
    )
