"""Places where a test can make this process die or fail, named in `PARHELIA_FAILPOINT`.

`PARHELIA_FAILPOINT=NAME:ACTION[,NAME:ACTION...]` with ACTION one of `kill9`, `raise`, `enospc`, `sleep` (60 s) or
`sleep=SECONDS`. `NAME@K:ACTION` acts on the K-th arrival (from 1) only. Without the variable `reach` is a no-op.
"""

from __future__ import annotations

import errno
import os
import signal
import time

_PLAN: dict[str, tuple[int, str]] = {}
_ARRIVALS: dict[str, int] = {}
for _entry in filter(None, os.environ.get("PARHELIA_FAILPOINT", "").split(",")):
    _name, _, _action = _entry.partition(":")
    _name, _, _count = _name.partition("@")
    _PLAN[_name] = (int(_count or 0), _action)


def reach(name: str) -> None:
    """Do what the test asked for at this place; nothing in production."""
    if name not in _PLAN:
        return
    _ARRIVALS[name] = _ARRIVALS.get(name, 0) + 1
    wanted, action = _PLAN[name]
    if wanted and wanted != _ARRIVALS[name]:
        return
    if action == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif action.startswith("sleep"):
        time.sleep(float(action.partition("=")[2] or 60))
    else:
        raise ValueError(f"PARHELIA_FAILPOINT: unknown action {action!r} for {name}")
