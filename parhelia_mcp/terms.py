"""The terms of a session: its sizes, its agent, its limits, when it keeps its work. Submit and resume settle them alike."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from parhelia_mcp import credentials
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused, Unreachable, Usage
from parhelia_mcp.model import Sizes, dollars
from parhelia_mcp.sessions import Cost
from parhelia_mcp.spec import Agent, CheckpointPolicy, Limits

PROVIDERS = ("local", "modal")
ALIASES = {"A10G": "A10"}


def sizes_for(
    ctx: Context, provider: str, cpu: float | None, memory: float | None, gpu: str | None, *, check_gpu: bool = True
) -> Sizes:
    """Sizes with the provider's defaults. 0 GiB means no limit (local, unless asked).

    Raises Usage `unknown-provider`, Refused `gpu-unavailable`.
    """
    if provider not in PROVIDERS:
        raise Usage(
            "unknown-provider",
            f"No provider {provider[:40]!r}; nothing was started.",
            "--provider local or --provider modal",
        )
    section = ctx.loaded.config.modal
    local = provider == "local"
    kind = None
    if gpu and gpu.lower() != "none":
        name, _, count = gpu.upper().partition(":")
        kind = ALIASES.get(name, name) + (f":{count}" if count else "")
        if check_gpu:
            _check_gpu(ctx, provider, kind)
    return Sizes(
        cpu or (float(os.cpu_count() or 1) if local else section.cpu),
        memory or (0.0 if local else section.memory),
        kind,
    )


def _check_gpu(ctx: Context, provider: str, kind: str) -> None:
    offered = ctx.provider(provider).properties.gpus
    if kind.partition(":")[0] in offered:
        return
    if provider == "local":
        what = f"This machine has {', '.join(offered)}" if offered else "This machine has no GPU"
        raise Refused(
            "gpu-unavailable",
            f"{what}, so {kind} is not to be had on local; nothing was started.",
            f"--provider modal --gpu {kind}, or leave --gpu out",
        )
    import difflib

    near = difflib.get_close_matches(kind, offered, n=1, cutoff=0.3) or offered
    raise Refused(
        "gpu-unavailable",
        f"{provider} has no GPU {kind}; it has {', '.join(offered)}. Nothing was started.",
        f"--gpu {near[0]}",
    )


def agent_for(
    ctx: Context, provider: str, *, command: Sequence[str] | None, model: str | None = None, interactive: bool = False
) -> Agent:
    """What the runner shall run. Raises before anything starts where the agent or its credential is missing."""
    isolate = ctx.config.local.isolate if provider == "local" else "none"
    if isolate == "bwrap" and not shutil.which("bwrap", path=ctx.environ.get("PATH")):
        raise Refused(
            "bwrap-missing",
            "[local] isolate is bwrap and bubblewrap is not installed; nothing was started.",
            "sudo apt-get install -y bubblewrap",
        )
    if command is not None:
        return Agent(kind="command", program=command[0], isolate=isolate)
    settings = ctx.config.agent
    program = settings.command
    if provider == "local":
        found = shutil.which(program, path=ctx.environ.get("PATH"))
        if not found:
            raise Refused(
                "agent-missing",
                f"{program!r} is not installed or not in PATH; nothing was started.",
                'npm install -g @anthropic-ai/claude-code, or set [agent] command = "/path/to/claude" in ~/.config/parhelia/parhelia.toml',
            )
        program = str(Path(found).resolve()) if os.sep in program else found
    try:
        credential = credentials.resolve(ctx)
    except Unreachable as missing:
        raise Refused(missing.code, missing.message, missing.hint) from None
    mode = settings.permission_mode or ("bypassPermissions" if provider == "modal" else "acceptEdits")
    return Agent(
        kind="claude",
        program=program,
        model=model or settings.model,
        permission_mode=mode,
        interactive=interactive,
        session_id=str(uuid.uuid4()),
        upstream=settings.base_url
        if settings.base_url != "https://api.anthropic.com"
        else ctx.environ.get("ANTHROPIC_BASE_URL", settings.base_url),
        credential_kind=credential.kind,
        isolate=isolate,
    )


def policy_for(ctx: Context) -> CheckpointPolicy:
    """When the session keeps its work, as the settings say."""
    section = ctx.loaded.config.checkpoint
    return CheckpointPolicy(
        section.interval_minutes,
        section.max_per_session,
        section.retention_days,
        tuple(section.exclude),
        section.encrypt,
    )


def limits_for(sizes: Sizes, max_usd: float | None, cost: Cost, agent: Agent) -> Limits:
    """What ends the session; the deadline is added when it starts."""
    return Limits(
        max_usd=max_usd if max_usd is not None else dollars(cost.total),
        max_tokens_usd=dollars(cost.tokens) if agent.kind == "claude" else None,
        memory_gb=sizes.memory_gb or None,
    )
