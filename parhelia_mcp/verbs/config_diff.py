"""What of this configuration of Claude Code travels into a session of this project, and what stays."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import BaseModel

from parhelia_mcp import config_sync
from parhelia_mcp.context import Context


class Request(BaseModel, extra="forbid"):
    """Show what would travel. Nothing is sent or kept."""


class Item(BaseModel):
    name: str
    note: str


class Result(BaseModel):
    carried: list[Item]
    rewritten: list[Item]
    dropped: list[Item]
    plugins: list[str]


def run(ctx: Context, request: Request) -> Result:
    with tempfile.TemporaryDirectory(prefix="parhelia-config-") as scratch:
        receipt = config_sync.collect(ctx.user_home, ctx.cwd, Path(scratch))
    return Result.model_validate(receipt.as_dict())
