"""The terms of a session: its sizes, its agent, its limits, when it keeps its work. Submit and resume settle them alike."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from parhelia_mcp import credentials, prices
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused, Unreachable, Usage
from parhelia_mcp.model import Sizes, dollars
from parhelia_mcp.sessions import Cost
from parhelia_mcp.spec import Agent, CheckpointPolicy, Limits

PROVIDERS = ("local", "modal")
ALIASES = {"A10G": "A10"}
MOST_GPUS = 64


def sizes_for(
    ctx: Context, provider: str, cpu: float | None, memory: float | None, gpu: str | None, *, check_gpu: bool = True
) -> Sizes:
    """Sizes with the provider's defaults. 0 GiB means no limit (local, unless asked).

    Raises Usage `unknown-provider`, `bad-gpu-count`; Refused `gpu-unavailable`, that not without `check_gpu`.
    """
    if provider not in PROVIDERS:
        raise Usage(
            "unknown-provider",
            f"No provider {provider[:40]!r}; nothing was started.",
            "--provider local or --provider modal",
        )
    section = ctx.loaded.config.modal
    local = provider == "local"
    kind = gpu_name(gpu)
    if kind and check_gpu and (refusal := gpu_refusal(ctx, provider, kind)):
        raise refusal
    return Sizes(
        cpu or (float(os.cpu_count() or 1) if local else section.cpu),
        memory or (0.0 if local else section.memory),
        kind,
    )


def gpu_name(gpu: str | None) -> str | None:
    """`NAME` or `NAME:COUNT` as prices and providers call it; None for `none`. Raises Usage `bad-gpu-count`."""
    if not gpu or gpu.lower() == "none":
        return None
    name, colon, count = gpu.upper().partition(":")
    if colon and not (count.isdecimal() and 0 < int(count) <= MOST_GPUS):
        raise Usage(
            "bad-gpu-count", f"{gpu[:40]!r} names no number of GPUs from 1 to {MOST_GPUS}.", f"--gpu {name[:40]}:2"
        )
    return ALIASES.get(name, name) + (f":{count}" if count else "")


def gpu_refusal(ctx: Context, provider: str, kind: str) -> Refused | None:
    """Why the provider cannot give this GPU, with what comes near; None where it can."""
    name, offered = kind.partition(":")[0], ctx.provider(provider).properties.gpus
    if name in offered:
        return None
    local = provider == "local"
    if local and name in _priced(ctx):
        has = f"This machine has {', '.join(offered)}" if offered else "This machine has no GPU"
        there = f"--provider modal --gpu {kind}, or " if name in ctx.provider("modal").properties.gpus else ""
        what, hint = f"{has}, so {kind} is not to be had on local; nothing was started.", f"{there}leave --gpu out"
        return Refused("gpu-unavailable", what, hint)
    import difflib

    names = _priced(ctx) if local else offered
    near = difflib.get_close_matches(name, names, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    what = (
        f"There is no GPU {kind[:40]}" if local else f"{provider} has no GPU {kind[:40]}; it has {', '.join(offered)}"
    )
    return Refused("gpu-unavailable", f"{what}.{guess} Nothing was started.", f"--gpu {(near or names)[0]}")


def _priced(ctx: Context) -> list[str]:
    """The GPUs that have a price: the table's, and the user's own."""
    return list(prices.rates(ctx.loaded.config.prices)["gpu"]) + list(prices.GPU_ALIASES)


def agent_for(
    ctx: Context,
    provider: str,
    *,
    command: Sequence[str] | None,
    model: str | None = None,
    interactive: bool = False,
    depth: int = 0,
) -> Agent:
    """What the runner shall run; `depth` is how many sessions its task was handed on through.

    Raises before anything starts where the agent or its credential is missing.
    """
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
        delegate=max(settings.delegate - depth, 0),
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
