"""Bring a session's work into the repository it came from: as a ref, and into the tree only when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from parhelia_mcp import controller, follow, workspace
from parhelia_mcp.context import Context
from parhelia_mcp.errors import NotFound, Refused
from parhelia_mcp.store import Session


class Request(BaseModel, extra="forbid"):
    """Fetch a session's result; `apply` merges it into the working tree, all or nothing."""

    id: Annotated[str, Field(description="Task or session")]
    apply: bool = False


class Result(BaseModel):
    task_id: str
    session_id: str
    ref: str | None
    branch: str | None
    commit: str | None
    files_changed: int | None
    notes: list[str]
    risky_paths: list[str]
    applied: bool
    applied_paths: list[str]
    next: str


def run(ctx: Context, request: Request) -> Result:
    """Raises Refused `still-running`, NotFound `no-result`, Refused `conflicts` with the paths."""
    session = ctx.store.find(request.id)
    if session.live:
        session = follow.advance(ctx, session)
        controller.ensure(ctx)
    if session.live:
        raise Refused(
            "still-running",
            f"{session.id} is {session.state}; its work lands when it ends. Nothing was fetched.",
            f"parhelia logs {session.task} --follow",
        )
    bundle = ctx.session_dir(session.task, session.number) / "result.bundle"
    task = ctx.store.task(session.task)
    if not bundle.exists() or task.source is None:
        raise NotFound(
            "no-result", f"{session.id} changed no file, so there is nothing to pull.", f"parhelia logs {session.task}"
        )
    source = Path(task.source)
    sent = follow.spec_of(session).workspace
    landed = workspace.land(source, sent, bundle, task=session.task, number=session.number)
    applied = workspace.apply(source, sent, landed.ref or bundle) if request.apply else None
    return Result(
        task_id=session.task,
        session_id=session.id,
        ref=landed.ref,
        branch=landed.branch,
        commit=landed.commit,
        files_changed=landed.files_changed,
        notes=list(landed.notes),
        risky_paths=list(landed.risky_paths),
        applied=applied is not None,
        applied_paths=list(applied.files) if applied else [],
        next=_next(session, landed.branch or landed.ref, applied is not None),
    )


def _next(session: Session, name: str | None, applied: bool) -> str:
    if applied:
        return "git status"
    return f"git diff HEAD...{name}" if name else f"parhelia pull {session.task} --apply"
