"""Every command that a diagnosis prints is one that the command line takes, and the troubles people have lead to one."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from parhelia_mcp.cli import parhelia
from parhelia_mcp.diagnosis.rules import RULES

TROUBLES = {  # what the troubleshooting page names -> the cause here, and what its next command or fix must hold
    "Modal API issues": ("token-rejected", "modal token"),
    "Region unavailable": ("region-unavailable", "region"),
    "Resource unavailable": ("gpu-scarce", "another GPU"),
    "Budget exceeded": ("over-budget", "parhelia budget show"),
    "Container still starting": ("still-starting", "wait for running"),
    "Container crashed": ("lost", "parhelia recover"),
    "Network issues": ("provider-unreachable", "parhelia status"),
    "Port conflicts": ("port-taken", "lsof -i :2222"),
    "Checkpoint doesn't exist": ("checkpoint-missing", "--action restart"),
    "Workspace conflicts": ("workspace-conflict", "--target"),
    "Corrupted checkpoint": ("checkpoint-corrupted", "--checkpoint-id"),
    "Claude Code hung": ("agent-hung", "terminal"),
    "Container frozen": ("container-frozen", "parhelia recover"),
    "Network partition": ("partition", "sleep 60"),
    "Long-running sessions": ("forgotten-session", "parhelia session kill"),
    "GPU when not needed": ("gpu-idle", "--gpu none"),
    "Forgotten sessions": ("forgotten-session", "parhelia session kill"),
    "Hook not executable, no shebang, wrong path": ("hooks-broken", "parhelia hooks validate"),
    "Out of memory": ("out-of-memory", "twice the memory"),
    "Disk full": ("disk-full-of-checkpoints", "checkpoint delete --older-than 7d"),
    "Bad entrypoint": ("bad-entrypoint", "entrypoint"),
}


@pytest.mark.parametrize("line", sorted({rule.next for rule in RULES}))
def test_a_printed_command_is_one_that_is_taken(line: str) -> None:
    named = {"task": "task-0a1b2c3d", "whole_checkpoint": "cp-0a1b2c3d"}
    for part in re.split(r"&&|;", line.format_map(named)):
        words = shlex.split(part)
        if words[0] != "parhelia":
            assert words[0] in ("modal", "sleep")
            continue
        command, name = parhelia, words.pop(0)
        while isinstance(command, click.Group) and words:
            name = words.pop(0)
            command = command.get_command(click.Context(command), name)
            assert command is not None, (name, line)
        command.make_context(name, words)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_trouble_that_people_have_is_a_cause_with_its_mending(trouble: str) -> None:
    cause, words = TROUBLES[trouble]
    assert any(words in f"{rule.fix} {rule.next}" for rule in RULES if rule.cause == cause)
