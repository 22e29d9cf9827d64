"""A task that may run for longer than a sandbox can live: its sessions end with reason `lifetime`, and the next goes on."""

from __future__ import annotations

from dataclasses import replace

from parhelia_mcp import files, sessions, task_checkpoints, task_limit
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Busy, Problem, Unreachable
from parhelia_mcp.follow import spec_of
from parhelia_mcp.model import dollars, session_id
from parhelia_mcp.store import Session


def carry_on(ctx: Context, session: Session) -> Session:
    """The newest session of the task: the next one, reserved and pending, where this one waits to be followed.

    What stands in its way is stored in `waiting_for`, and it is not tried again: `recover` is. A provider that does not
    answer is no such thing. Raises Unreachable, Busy.
    """
    if session.id not in [one.id for one in ctx.store.outlived()]:
        return ctx.store.newest(session.task)
    try:
        return _next(ctx, session)
    except (Unreachable, Busy):
        raise
    except Problem as problem:
        why = f"{problem} Then: parhelia recover {session.task}"
        return ctx.store.update(session.id, waiting_for=why, detail=f"{session.detail}; not continued: {why}")


def _next(ctx: Context, session: Session) -> Session:
    task, before = ctx.store.task(session.task), spec_of(session)
    kept = task_checkpoints.newest(ctx, session)
    most = dollars(task_limit.left(ctx, session))
    left_s, agent = before.limits.left_s, before.agent
    cost = sessions.worst_case(
        ctx, session.provider, session.sizes, session.region, left_s, most, agent.kind == "claude"
    )
    life_s = sessions.life(ctx, session.provider, left_s)
    tokens = dollars(cost.tokens) if agent.kind == "claude" else None
    if kept.agent.transcript and kept.agent.session_id:
        agent = replace(agent, resume=True, session_id=kept.agent.session_id)
    folder = files.private_dir(ctx.session_dir(task.id, session.number + 1))
    agent, carried = sessions.configured(ctx, agent, task.repository or task.source, folder, cost)
    spec = replace(
        before,
        session=session_id(task.id, session.number + 1),
        workspace=replace(before.workspace, inputs=(), checkpoint=kept.hash),
        limits=replace(before.limits, max_usd=most, max_tokens_usd=tokens, left_s=left_s - life_s),
        agent=agent,
        message=None,
    )
    asked = sessions.Asked(session.sizes, session.region, life_s, most, cost, left_s=left_s - life_s)
    return sessions.create(ctx, task, session.number + 1, spec, carried, asked, new_task=False)
