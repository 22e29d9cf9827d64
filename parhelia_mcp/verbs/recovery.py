"""What `recover` answers, at both doors. It lies beside the verb because the tools are declared without loading that."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Plan(BaseModel):
    """What recovering would do. A size that is not named stays as it was."""

    action: str
    from_checkpoint: str | None = None
    kept: str
    lost: str
    cost_usd: float  # the most the next session can cost
    memory_gb: float | None = None
    gpu: str | None = None
    region: str | None = None  # "any": the provider's choice


class Result(BaseModel):
    task_id: str
    session_id: str
    cause: str
    confidence: str
    what: str
    evidence: list[dict[str, Any]]
    ruled_out: list[dict[str, Any]]
    fix: str
    plan: Plan | None = None
    choices: list[str]
    did: str
    state: str
    next: str
