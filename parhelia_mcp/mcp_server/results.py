"""What the tools answer: flat objects without nulls, because some hosts show the model exactly this JSON."""

from __future__ import annotations

from typing import Any, TypedDict

import pydantic_core
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel


class Submitted(TypedDict, total=False):
    task_id: str
    session_id: str
    state: str
    reserved_usd: float
    estimate_usd: float
    remaining_usd: float
    note: str
    next: str


class Status(TypedDict, total=False):
    """One task (`task_id`, `state`, ...), or without an id all of them (`counts`, `tasks`, `decisions`)."""

    task_id: str
    session_id: str
    state: str
    reason: str
    detail: str
    title: str
    waiting_for: str
    last_activity: str
    exit_code: int
    result: dict[str, Any]
    checkpoints: list[dict[str, Any]]
    diagnosis: dict[str, Any]
    observed: bool
    observed_at: str
    attach: str
    counts: dict[str, int]
    tasks: list[dict[str, Any]]
    more: int
    next_cursor: str
    decisions: list[dict[str, str]]
    ceiling_usd: float
    spent_usd: float
    reserved_usd: float
    remaining_usd: float
    since: str
    config: str
    next: str


class Budget(TypedDict, total=False):
    ceiling_usd: float
    spent_usd: float
    reserved_usd: float
    remaining_usd: float
    burn_usd_per_hour: float
    warning: str
    by_task: list[dict[str, Any]]
    by_day: list[dict[str, Any]]
    by_kind: list[dict[str, Any]]
    omitted: int
    estimate_usd: float
    compute_usd: float
    tokens_usd: float
    fits: bool
    model: dict[str, Any]
    per_task_usd: float
    offers: list[dict[str, Any]]
    hours: float
    prices_date: str
    prices_source: str
    before_usd: float
    note: str
    next: str


class Kept(TypedDict, total=False):
    checkpoint_id: str
    checkpoints: list[dict[str, Any]]
    omitted: int
    added: list[str]
    changed: list[str]
    removed: list[str]
    text: str
    ok: bool
    problems: list[str]
    target: str
    files: int
    saved: str
    freed_bytes: int
    next: str


def answer(result: BaseModel | dict[str, Any]) -> CallToolResult:
    """A result without its nulls, as an object and, for hosts that read only text, as the same JSON once more."""
    flat = trimmed(result.model_dump(mode="json") if isinstance(result, BaseModel) else result)
    text = pydantic_core.to_json(flat).decode()
    return CallToolResult(structured_content=flat, content=[TextContent(type="text", text=text)])


def trimmed(value: Any) -> Any:
    """The value without nulls, however deep."""
    if isinstance(value, dict):
        return {key: trimmed(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [trimmed(inner) for inner in value]
    return value


def cut(value: Any, longest: int) -> Any:
    """The value with every text in it cut to so many characters."""
    if isinstance(value, dict):
        return {key: cut(inner, longest) for key, inner in value.items()}
    if isinstance(value, list):
        return [cut(inner, longest) for inner in value]
    return f"{value[: longest - 1]}…" if isinstance(value, str) and len(value) > longest else value
