"""The entrypoint of a sandbox: a guard that ends everything when the runner is gone, and the runner.

    python -m parhelia_mcp.inside TASK_DIR N [--workspace DIR] [--credential-fd FD | --credential-env]
        [--pass-env NAME,NAME] [--ssh-port N] [--user NAME] [--home DIR] [--lifetime S]

The guard is the parent: it holds no secret, passes signals on, enforces the lifetime of the sandbox, and is who every
process falls to when the runner is killed. So nothing outlives the runner, whatever it did to its environment.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from parhelia_mcp import files, processes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m parhelia_mcp.inside")
    parser.add_argument("task_dir", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("--workspace", type=Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--credential-fd", type=int)
    source.add_argument("--credential-env", action="store_true")
    parser.add_argument(
        "--ssh-port", type=int, default=0, help="of a sandbox with a network of its own; 0: any free one"
    )
    parser.add_argument(
        "--pass-env",
        type=lambda names: names.split(","),
        default=(),
        help="variables that the agent may see besides the usual",
    )
    parser.add_argument("--user", help="whom the agent runs as, where that is not the runner's user")
    parser.add_argument("--home", type=Path, help="the agent's HOME; default: below the task's directory")
    parser.add_argument("--lifetime", type=float, default=0.0, help="seconds after which the guard ends everything")
    options = parser.parse_args()
    os.umask(0o022)  # the agent's files are as usual; ours say themselves that they are private
    session_dir = files.private_dir(options.task_dir.resolve() / "sessions" / str(options.number))
    processes.adopt_orphans()
    options.guard = processes.identity(os.getpid())
    runner = os.fork()
    if runner:
        if options.credential_fd is not None:
            os.close(options.credential_fd)
        sys.exit(guard(runner, session_dir, options.lifetime))
    from parhelia_mcp.inside import runner as inside

    sys.exit(inside.main(options, session_dir))


def guard(runner: int, session_dir: Path, lifetime: float) -> int:
    """Wait for the runner, end what it left, record how it ended in exit.json; returns the exit code."""
    cause = ""

    def expired(number, frame) -> None:
        nonlocal cause
        cause = "timeout"
        os.kill(runner, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os.kill(runner, number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, lifetime)
    while True:
        pid, status = os.wait()
        if pid == runner:
            break
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(status)
    if code == REFUSED:
        return code
    me = os.getpid()
    left = processes.end(lambda: _reaped(processes.descendants(me)))
    cause = cause or ("" if code >= 0 else "terminated")
    files.replace_json(session_dir / "exit.json", {"code": code if code >= 0 else None, "cause": cause})
    if left:
        sys.stderr.write(f"guard: still alive after SIGKILL: {sorted(left)}\n")
    return code if code >= 0 else 128 - code


REFUSED = 75  # another runner has this session: what it does and records is not touched


def _reaped(found: dict[int, processes.Stat]) -> dict[int, processes.Stat]:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return found
        except ChildProcessError:
            return found


if __name__ == "__main__":
    main()
