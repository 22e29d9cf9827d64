"""What a session is told: the one file (`tasks/TASK/spec.json`) that the runner reads before it does anything.

Limits of a session never change; more money or time is the next session. No secret is ever in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parhelia_mcp import files

VERSION = 1
CHECKPOINT_KEY = "PARHELIA_CHECKPOINT_KEY"  # the name of that key in the runner's credential


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the files come from: a git bundle, a snapshot of a directory, a checkpoint, or nothing."""

    kind: str  # "git" | "files" | "checkpoint" | "empty"
    base_commit: str | None = None  # the commit the session starts from: HEAD + index + tree + untracked, as sent
    head_commit: str | None = None  # the user's real HEAD; None on an unborn branch
    branch: str | None = None  # the branch checked out in the session; None when HEAD was detached
    inputs: tuple[str, ...] = ()  # files to unpack, relative to the session's directory, in order
    checkpoint: str | None = None  # whole blake3 hash of the manifest to restore
    ground: str | None = None  # what is said of the snapshot on which the checkpoint is laid


@dataclass(frozen=True, slots=True)
class Limits:
    """When the session must end. `deadline` is ISO 8601 UTC; money is dollars."""

    deadline: str | None = None
    max_usd: float | None = None
    max_tokens_usd: float | None = None
    memory_gb: float | None = None
    no_progress_minutes: float = 20.0
    waiting_hours: float = 12.0
    paid_s: float | None = None  # how long the sandbox was paid for; said with the deadline
    left_s: float = 0.0  # of the task's time after the deadline, which then is only the sandbox's: the next goes on


@dataclass(frozen=True, slots=True)
class Configuration:
    """The user's Claude Code configuration that came along: an archive in the session's directory, and how many things."""

    archive: str
    carried: int
    rewritten: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Agent:
    """What the runner runs. `upstream` and `credential_kind` are for the meter; the credential comes by descriptor."""

    kind: str  # "claude" | "command"
    program: str = "claude"
    model: str | None = None
    permission_mode: str | None = None
    interactive: bool = False
    session_id: str | None = None  # the conversation's UUID
    resume: bool = False  # continue that conversation instead of starting it
    upstream: str = "https://api.anthropic.com"
    credential_kind: str = "none"  # "api-key" | "oauth" | "none"
    hooks: tuple[str, ...] = ()
    configuration: Configuration | None = None
    isolate: str = "none"  # "none" | "bwrap"
    delegate: int = 0  # how many levels of sessions may follow from what this one hands on


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    interval_minutes: float = 5.0
    max_per_session: int = 20
    retention_days: float = 7.0
    exclude: tuple[str, ...] = ()
    encrypt: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    task: str
    session: str
    workspace: Workspace
    sizes: dict[str, Any]
    limits: Limits
    agent: Agent
    checkpoint: CheckpointPolicy
    prompt: str | None = None
    command: tuple[str, ...] | None = None
    region: str | None = None  # what its price depends on; None where the provider chooses
    message: str | None = None  # said to a resumed conversation instead of the prompt
    prices: dict[str, Any] = field(default_factory=dict)  # overrides of the table, for the meter
    v: int = VERSION

    @property
    def number(self) -> int:
        return int(self.session.rpartition(".")[2])

    def write(self, path: Path) -> None:
        files.replace_json(path, asdict(self), durable=True)

    @classmethod
    def read(cls, path: Path) -> Spec | None:
        """The spec in `path`, or None while it has not been delivered."""
        raw = files.read_json(path)
        return None if raw is None else cls.of(raw)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Spec:
        """The spec that JSON data says."""
        return cls(
            **{
                **raw,
                "workspace": Workspace(**{**raw["workspace"], "inputs": tuple(raw["workspace"]["inputs"])}),
                "limits": Limits(**raw["limits"]),
                "agent": _agent(raw["agent"]),
                "checkpoint": CheckpointPolicy(**{**raw["checkpoint"], "exclude": tuple(raw["checkpoint"]["exclude"])}),
                "command": tuple(raw["command"]) if raw["command"] is not None else None,
            }
        )


def _agent(raw: Mapping[str, Any]) -> Agent:
    told = raw.get("configuration")
    return Agent(
        **{**raw, "hooks": tuple(raw["hooks"]), "configuration": None if told is None else Configuration(**told)}
    )
