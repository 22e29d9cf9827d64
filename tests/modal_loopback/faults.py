"""What goes wrong, and when: a list of rules that tests set while the server runs.

A rule is `{"rpc": NAME, "action": ACTION, ...}`; `skip` lets that many calls pass first, `times` (default: for ever)
is how many it then hits. Actions:

    status   fail with gRPC `status`, before anything is done       hang    never answer
    slow     answer after `seconds`                                 cut     end a stream after `messages` messages
    lose     do it, then lose the answer: `status`, or hang where there is none
    die      kill the server before it does anything                die-after  do it, or send `messages` of a stream, then
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpclib import GRPCError, Status

from parhelia_mcp import files

FOREVER = 1 << 30


@dataclass
class Fault:
    """What happens to one call; nothing by default."""

    action: str = ""
    status: str = ""
    message: str = "injected"
    seconds: float = 0.0
    messages: int = 0

    async def before(self) -> None:
        if self.action == "status":
            self._fail()
        if self.action == "die":
            _die()
        if self.action == "hang":
            await asyncio.Event().wait()
        if self.action == "slow":
            await asyncio.sleep(self.seconds)

    async def after(self) -> None:
        if self.action == "lose":
            if not self.status:
                await asyncio.Event().wait()
            self._fail()
        if self.action == "die-after":
            _die()

    def count_message(self) -> None:
        if self.action in ("cut", "die-after"):
            if self.messages <= 0 and self.action == "die-after":
                _die()
            if self.messages <= 0:
                raise GRPCError(Status.UNAVAILABLE, "stream cut")
            self.messages -= 1

    def _fail(self) -> None:
        raise GRPCError(Status[self.status], self.message)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Faults:
    """The rules in force; they lie in a file, so that a server that died goes on with those that are left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rules: list[dict[str, Any]] = files.read_json(path) or []

    def replace(self, rules: list[dict[str, Any]]) -> None:
        self._rules = [{"skip": 0, "times": FOREVER, **rule} for rule in rules]
        files.replace_json(self._path, self._rules)

    def take(self, rpc: str) -> Fault:
        """The fault of this call of `rpc`; the first rule that applies is used up by one."""
        for rule in self._rules:
            if rule["rpc"] != rpc or rule["times"] <= 0:
                continue
            if rule["skip"] > 0:
                rule["skip"] -= 1
                continue
            rule["times"] -= 1
            files.replace_json(self._path, self._rules)
            return Fault(**{name: rule[name] for name in Fault.__dataclass_fields__ if name in rule})
        return Fault()
