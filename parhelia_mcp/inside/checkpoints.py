"""When a session's work is kept, and of what: the workspace and the conversation, by `parhelia_mcp.checkpoint`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from parhelia_mcp import files, model, processes, spec
from parhelia_mcp.errors import Problem, Refused
from parhelia_mcp.inside import outcome
from parhelia_mcp.inside.agent import Room
from parhelia_mcp.plain import many

if TYPE_CHECKING:
    from parhelia_mcp.checkpoint.create import Source
    from parhelia_mcp.checkpoint.manifest import Facts

FINAL = {"completed": "complete", "failed": "error", "killed": "shutdown"}  # the trigger of the last one, by state


class Checkpoints:
    """Takes the checkpoints of one session, one at a time. `screen` gives what a person would see of it."""

    def __init__(self, room: Room, folder: Path, screen: Callable[[], bytes]) -> None:
        self._room = room
        self._folder = folder
        self._screen = screen
        self._seen = room.runtime / "screen.txt"
        self._one = anyio.Lock()
        self.taking: dict[str, int] | None = None  # how far the one that is being taken has come

    async def every(self) -> None:
        """Take one at each interval if anything changed; one that fails is recorded and the next is tried."""
        interval = self._room.spec.checkpoint.interval_minutes * 60
        while interval > 0:
            await anyio.sleep(interval)
            await self.attempt("periodic")

    async def attempt(self, trigger: str) -> None:
        """Take one unless it fails, which is recorded and stops nothing."""
        try:
            await self.take(trigger)
        except Problem as problem:
            self._room.emit("warning", f"error: no checkpoint ({trigger}): {problem}", code=problem.code)

    async def take(self, trigger: str, *, note: str = "", pending_tool: str | None = None) -> dict[str, Any]:
        """Keep the session as it is now, its processes stopped meanwhile. Raises Problem.

        It is consistent when the agent says that nothing is half done; else the tool that is at work is named.
        """
        async with self._one:
            pending = pending_tool or self._room.pending()
            consistent = pending_tool is None and self._room.resting()
            try:
                seen = await anyio.to_thread.run_sync(self._take, trigger, consistent, None if consistent else pending)
            finally:
                self.taking = None
        new = seen.pop("new")
        if new:
            kept = f"{many(seen['files'], 'file')}, {seen['bytes']} bytes, {seen['stored_bytes']} stored"
            why = f"{trigger}: {outcome.brief(note)}" if note else trigger
            self._room.emit("checkpoint", f"checkpoint {seen['checkpoint_id']} ({why}): {kept}", note=note, **seen)
        return seen

    def see(self) -> None:
        """Remember what the screen shows. A tree that is stopped, or has ended, shows nothing."""
        if text := self._screen():
            files.replace(self._seen, text)

    def _take(self, trigger: str, consistent: bool, pending_tool: str | None) -> dict[str, Any]:
        from parhelia_mcp.checkpoint import create, retention, session
        from parhelia_mcp.checkpoint.store import Store

        room, policy = self._room, self._room.spec.checkpoint
        store = Store(self._folder, _required_key(room.credential) if policy.encrypt else None)
        before = model.timestamp()
        self.see()
        with processes.stopped(lambda: processes.members(room.spec.session, room.spared, room.spared)):
            kept = list(
                session.sources(room.workspace, room.home, room.agent.get("session_id"), policy.exclude, self._seen)
            )
            facts = self._facts(trigger, consistent, pending_tool, kept)
            made = create.create(store, kept, facts, unless_same=trigger == "periodic", progress=self._progress)
        retention.retain(store, policy, model.now())
        return {"new": made.created_at >= before, **shown(made)}

    def _progress(self, files: int, count: int) -> None:
        self.taking = {"files": files, "bytes": count}

    def _facts(self, trigger: str, consistent: bool, pending_tool: str | None, kept: list[Source]) -> Facts:
        from parhelia_mcp.checkpoint import retention, session
        from parhelia_mcp.checkpoint.manifest import AgentFacts, Counters, Facts

        room = self._room
        counted, agent = room.counters, room.agent
        return Facts(
            trigger=trigger,
            task=room.spec.task,
            session=room.spec.session,
            consistent=consistent,
            pending_tool=pending_tool,
            counters=Counters(
                turns=int(counted.get("turns", 0)), tokens=int(counted.get("tokens", 0)), usd=counted.get("usd", 0.0)
            ),
            agent=AgentFacts(
                kind=room.spec.agent.kind,
                version=agent.get("version"),
                session_id=agent.get("session_id"),
                cwd=str(room.workspace),
                transcript=session.conversation_in(kept),
            ),
            env_names=tuple(sorted(room.env)),
            tmux=session.SCREEN if any(one.name == session.SCREEN for one in kept) else None,
            expires_at=retention.expires_at(trigger, model.now(), room.spec.checkpoint),
        )


def shown(made: Any) -> dict[str, Any]:
    """What is said of a checkpoint in an event and in an answer."""
    return {
        "checkpoint_id": made.id,
        "hash": made.hash,
        "session_id": made.session,
        "trigger": made.trigger,
        "created_at": made.created_at,
        "consistent": made.consistent,
        "pending_tool": made.pending_tool,
        "files": made.files,
        "bytes": made.bytes,
        "stored_bytes": made.stored_bytes,
        "partial": made.partial,
        "skipped": [{"path": each.path, "why": each.why} for each in made.skipped[:50]],
        "changed": list(made.changed[:50]),
        "expires_at": made.expires_at,
    }


def key(credential: Mapping[str, str]) -> bytes | None:
    """The key of encrypted checkpoints, where one came with the credential."""
    given = credential.get(spec.CHECKPOINT_KEY)
    return bytes.fromhex(given) if given else None


def _required_key(credential: Mapping[str, str]) -> bytes:
    found = key(credential)
    if found is None:
        what = "Checkpoints of this session are to be encrypted and its runner was given no key; none was taken."
        raise Refused("key-needed", what, "start the next session: parhelia resume")
    return found
