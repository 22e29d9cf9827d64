"""`[local] isolate = "bwrap"`: the agent in namespaces of its own, where bubblewrap is installed.

It sees the machine read-only, its workspace and its HOME writable, no other process, and nothing of the user's keys or of
other sessions. The network stays: the agent needs its meter, and commands need what they need.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PRIVATE = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".claude", ".claude.json", ".modal.toml", ".netrc", ".config")
_PACKAGE = Path(__file__).resolve().parents[2]  # hooks of ours that the agent's client runs


def confined(argv: Sequence[str], env: Mapping[str, str], *, hidden: Path, writable: Sequence[Path]) -> list[str]:
    """The argv that runs `argv` confined. `hidden` and /tmp are empty but for what of `writable` lies in them.

    Raises FileNotFoundError for a program that is not there, as exec does.
    """
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise FileNotFoundError(argv[0])
    words = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/"]
    words += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", str(hidden)]
    words += [
        word
        for path in _private()
        for word in (("--tmpfs", str(path)) if path.is_dir() else ("--ro-bind", os.devnull, str(path)))
    ]
    for path in (Path(sys.prefix), Path(sys.base_prefix), _PACKAGE, Path(program).resolve().parent):
        words += ["--ro-bind", str(path), str(path)]
    for path in writable:
        words += ["--bind", str(path), str(path)]
    return [*words, "--", str(Path(program).resolve()), *argv[1:]]


def _private() -> list[Path]:
    """What of the user's HOME an agent must not see."""
    home = Path(os.environ.get("HOME") or "/nonexistent")
    found = [home / name for name in PRIVATE]
    return [path for path in found if path.exists() and not path.is_symlink()]
