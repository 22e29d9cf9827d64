"""When a session's work is kept, and of what: the workspace and the conversation, by `parhelia_mcp.checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from parhelia_mcp import model, processes
from parhelia_mcp.errors import Problem
from parhelia_mcp.inside.agent import Room

FINAL = {"completed": "complete", "failed": "error", "killed": "shutdown"}  # the trigger of the last one, by state


class Checkpoints:
    """Takes the checkpoints of one session, one at a time."""

    def __init__(self, room: Room, folder: Path) -> None:
        self._room = room
        self._folder = folder
        self._one = anyio.Lock()

    async def every(self) -> None:
        """Take one at each interval if anything changed; one that fails is recorded and the next is tried."""
        interval = self._room.spec.checkpoint.interval_minutes * 60
        while interval > 0:
            await anyio.sleep(interval)
            await self.attempt("periodic")

    async def attempt(self, trigger: str, *, at_rest: bool = False) -> None:
        """Take one unless it fails, which is recorded and stops nothing."""
        try:
            await self.take(trigger, at_rest=at_rest)
        except Problem as problem:
            self._room.emit("warning", f"error: no checkpoint ({trigger}): {problem}", code=problem.code)

    async def take(
        self, trigger: str, *, note: str = "", pending_tool: str | None = None, at_rest: bool = False
    ) -> dict[str, Any]:
        """Keep the session as it is now, its processes stopped meanwhile. Raises Problem.

        It is consistent when nothing was half done: `at_rest`, or the agent says so.
        """
        consistent = at_rest or (self._room.resting() and pending_tool is None)
        async with self._one:
            seen = await anyio.to_thread.run_sync(self._take, trigger, consistent, pending_tool)
        new = seen.pop("new")
        if new:
            kept = f"{seen['files']} files, {seen['bytes']} bytes, {seen['stored_bytes']} stored"
            self._room.emit("checkpoint", f"checkpoint {seen['checkpoint_id']} ({trigger}): {kept}", note=note, **seen)
        return seen

    def _take(self, trigger: str, consistent: bool, pending_tool: str | None) -> dict[str, Any]:
        from parhelia_mcp.checkpoint import create, retention
        from parhelia_mcp.checkpoint.manifest import AgentFacts, Counters, Facts
        from parhelia_mcp.checkpoint.store import Store

        room, policy = self._room, self._room.spec.checkpoint
        counted, agent = room.counters, room.agent
        facts = Facts(
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
                transcript=agent.get("transcript"),
            ),
            env_names=tuple(sorted(room.env)),
            expires_at=retention.expires_at(trigger, model.now(), policy),
        )
        store = Store(self._folder)
        before = model.timestamp()
        with processes.stopped(lambda: processes.members(room.spec.session, room.spared, room.spared)):
            made = create.create(store, self._sources(), facts, unless_same=trigger == "periodic")
        retention.retain(store, policy, model.now())
        return {"new": made.created_at >= before, **shown(made)}

    def _sources(self) -> list[Any]:
        from parhelia_mcp.checkpoint.create import Source

        room = self._room
        sources = [Source("workspace", room.workspace, exclude=room.spec.checkpoint.exclude)]
        if transcript := room.agent.get("transcript"):
            conversation = Path(transcript)
            sources += [
                Source(f"conversation/{conversation.name}", conversation, optional=True),
                Source(f"conversation/{conversation.stem}", conversation.with_suffix(""), optional=True),
            ]
        return sources


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


def restore(folder: Path, checkpoint: str, workspace: Path, conversation: Path, aside: Path) -> None:
    """Make `workspace`, which is empty or absent, and the conversation what they were. Raises Problem.

    A conversation that is there goes `aside`, out of the client's sight: it may be a later form of the same one.
    """
    from parhelia_mcp.checkpoint import restore as restoring
    from parhelia_mcp.checkpoint.store import Store, load

    store = Store(folder)
    wanted = load(store, checkpoint)
    restoring.restore(store, wanted, workspace, force=True)
    if wanted.agent.transcript:
        if conversation.exists():
            conversation.rename(aside)
        restoring.restore(store, wanted, conversation, part="conversation", force=True)
