"""The tool about checkpoints: files and conversation of a session at one moment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver import Elicit, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from parhelia_mcp.context import Context
from parhelia_mcp.mcp_server import consent
from parhelia_mcp.mcp_server.consent import Agreed, Need, ctx_of
from parhelia_mcp.mcp_server.results import Kept, answer
from parhelia_mcp.mcp_server.running import made, run
from parhelia_mcp.mcp_server.schema import compact

MOST_LISTED = 20
MOST_PATHS = 100
LONGEST_TEXT = 8_000  # characters of a diff of one file
NEEDS = {  # action -> the arguments it cannot do without
    "create": ("id",),
    "show": ("id",),
    "diff": ("a", "b"),
    "verify": ("id",),
    "restore": ("id", "target"),
    "delete": ("id",),
}
SHOWN = {"checkpoint_id", "session_id", "trigger", "created_at", "consistent", "partial", "files", "bytes", "turns"}


async def destroying(call: Call, action: str, id: str | None, target: str | None, overwrite: bool) -> Need:
    """What of this call a person has to agree to."""
    if action == "delete" and id and not consent.may(call, "delete"):
        what, line = f"Remove checkpoint {id} for good?", f"parhelia checkpoint delete {id}"
    elif action == "restore" and id and target and overwrite and not consent.may(call, "overwrite"):
        what = f"Restore {id} over what is in {target}? What is there now is kept in a checkpoint first."
        line = f"parhelia resume TASK --checkpoint-id {id} --target {target} --force"
    else:
        return Need()
    refusal = f"This is the person's to decide; nothing was done. Next: ask the person to type: {line} [not-agreed]"
    return Need(question=what, refusal=refusal)


async def agree_to_destroy(call: Call, need: Annotated[Need, Resolve(destroying)]) -> Agreed | Elicit[Agreed]:
    return await consent.ask(call, need)


async def checkpoint(
    call: Call,
    need: Annotated[Need, Resolve(destroying)],
    said: Annotated[ElicitationResult[Agreed], Resolve(agree_to_destroy)],
    action: Literal["create", "list", "show", "diff", "verify", "restore", "delete"],
    id: Annotated[str | None, Field(description="create, list: task; others: cp-... (restore: or a task)")] = None,
    a: Annotated[str | None, Field(description="diff: from this cp-...")] = None,
    b: Annotated[str | None, Field(description="diff: to this")] = None,
    path: Annotated[str | None, Field(description="diff: the text of one file")] = None,
    note: Annotated[str | None, Field(max_length=500, description="create: why")] = None,
    target: Annotated[str | None, Field(description="restore: directory to write into")] = None,
    overwrite: Annotated[bool, Field(description="restore: replace what is in target")] = False,
) -> Annotated[CallToolResult, Kept]:
    """Checkpoints: files and conversation of a session at one moment, taken by themselves every few minutes.
    create before something risky; diff what a session did between two; restore into a directory of its own."""
    given = {"id": id, "a": a, "b": b, "target": target}
    missing = [name for name in NEEDS.get(action, ()) if not given[name]]
    if missing:
        raise ToolError(
            f'{action} needs {" and ".join(missing)}. Nothing was done. Next: checkpoint(action="list") [argument-missing]'
        )
    consent.granted(need, said)
    ctx = ctx_of(call)
    if action == "diff":
        return answer(await run(_diff, ctx, a, b, path))
    if action == "restore":
        return answer(await run(_restore, ctx, str(id), str(target), overwrite))
    return answer(await run(_ONE[action], ctx, id, note))


def _create(ctx: Context, id: str, note: str | None) -> Any:
    from parhelia_mcp.verbs import checkpoint as verb

    return _shown(verb.create(ctx, made(verb.CreateRequest, id=id, note=note)).model_dump(mode="json"))


def _list(ctx: Context, id: str | None, note: str | None) -> Any:
    from parhelia_mcp.verbs import checkpoint as verb

    found = verb.list_(ctx, made(verb.ListRequest, session=id)).model_dump(mode="json")
    rows = [{name: value for name, value in row.items() if name in SHOWN} for row in found["checkpoints"]]
    omitted = len(rows) - MOST_LISTED
    return {
        "checkpoints": rows[:MOST_LISTED],
        "omitted": omitted if omitted > 0 else None,
        "damaged": found["damaged"] or None,
    }


def _show(ctx: Context, id: str, note: str | None) -> Any:
    from parhelia_mcp.verbs import checkpoint as verb

    shown = verb.show(ctx, made(verb.OneRequest, id=id)).model_dump(mode="json", exclude={"manifest"})
    return _shown(shown) | {"next": f"read parhelia://checkpoint/{shown['checkpoint_id']}/manifest for all of it"}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:MOST_LISTED] if isinstance(value, list) else value for name, value in row.items()}


def _verify(ctx: Context, id: str, note: str | None) -> Any:
    from parhelia_mcp.verbs import checkpoint as verb

    return _shown(verb.verify_(ctx, made(verb.OneRequest, id=id)).model_dump(mode="json"))


def _delete(ctx: Context, id: str, note: str | None) -> Any:
    from parhelia_mcp.verbs import checkpoint as verb

    return verb.delete(ctx, made(verb.DeleteRequest, ids=[id]))


_ONE = {"create": _create, "list": _list, "show": _show, "verify": _verify, "delete": _delete}


def _diff(ctx: Context, a: str | None, b: str | None, path: str | None) -> Any:
    from parhelia_mcp.verbs import checkpoint as verb

    found = verb.diff(ctx, made(verb.DiffRequest, a=a, b=b, path=path)).model_dump(mode="json", exclude={"sizes"})
    names = ("added", "changed", "removed")
    omitted = sum(max(0, len(found[name]) - MOST_PATHS) for name in names)
    text = found["text"]
    return {
        **found,
        **{name: found[name][:MOST_PATHS] for name in names},
        "omitted": omitted or None,
        "text": f"{text[:LONGEST_TEXT]}… cut" if text and len(text) > LONGEST_TEXT else text,
    }


def _restore(ctx: Context, id: str, target: str, overwrite: bool) -> Any:
    from parhelia_mcp import task_checkpoints
    from parhelia_mcp.verbs import resume as verb

    one = id if id.startswith("cp-") else None
    task = task_checkpoints.find(ctx, id)[0].task if one else id
    return verb.run(ctx, made(verb.Request, id=task, checkpoint_id=one, target=target, force=overwrite))


def tools() -> list[Tool]:
    annotations = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
    )
    return [compact(Tool.from_function(checkpoint, title="Checkpoints", annotations=annotations))]
