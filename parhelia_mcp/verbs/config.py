"""The settings in force and where each came from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from parhelia_mcp.context import Context


class Request(BaseModel, extra="forbid"):
    """Show the settings."""


class Result(BaseModel):
    ok: bool
    config: dict[str, Any]
    sources: dict[str, str]
    files: list[str]
    faults: list[str]
    home: str


def run(ctx: Context, request: Request) -> Result:
    loaded = ctx.loaded
    return Result(
        ok=not loaded.faults,
        config=loaded.config.model_dump(),
        sources=loaded.sources,
        files=[str(path) for path in loaded.files],
        faults=[f"{fault}. Fix: {fault.hint}" for fault in loaded.faults],
        home=str(ctx.home),
    )
