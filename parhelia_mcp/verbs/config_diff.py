"""What of your configuration of Claude Code travels into a session of this project, or travelled into one; what stays."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import BaseModel

from parhelia_mcp import config_sync, files
from parhelia_mcp.context import Context
from parhelia_mcp.errors import NotFound
from parhelia_mcp.hook_validation.sources import Place


class Request(BaseModel, extra="forbid"):
    """Show what would travel, or what travelled into a session. Nothing is sent or kept."""

    id: str | None = None


class Item(BaseModel):
    name: str
    note: str


class Result(BaseModel):
    carried: list[Item]
    rewritten: list[Item]
    dropped: list[Item]
    plugins: list[str]


def run(ctx: Context, request: Request) -> Result:
    """Raises NotFound `no-receipt` for a session that was given none of it."""
    if request.id:
        return _given(ctx, request.id)
    settings = ctx.loaded.config
    ours = config_sync.handing_on(settings.agent.delegate, settings.budget.per_task_usd)
    with tempfile.TemporaryDirectory(prefix="parhelia-config-") as scratch:
        receipt = config_sync.collect(Place(ctx.user_home, ctx.cwd, ctx.environ), Path(scratch), ours)
    return Result.model_validate(receipt.as_dict())


def _given(ctx: Context, id: str) -> Result:
    session = ctx.store.find(id)
    receipt = files.read_json(ctx.session_dir(session.task, session.number) / config_sync.RECEIPT)
    if receipt is None:
        what = f"{session.id} was given no Claude Code configuration: it does not run Claude Code."
        raise NotFound("no-receipt", what, "parhelia config diff")
    return Result.model_validate(receipt)
