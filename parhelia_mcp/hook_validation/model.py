"""The words of hook validation, and what Claude Code 2.1.197 knows, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT = "2.1.197"  # the version whose behaviour the tables below and the verdicts were checked against

EVENTS = frozenset(
    """PreToolUse PostToolUse PostToolUseFailure PostToolBatch Notification UserPromptSubmit UserPromptExpansion
    SessionStart SessionEnd Stop StopFailure SubagentStart SubagentStop PreCompact PostCompact PermissionRequest
    PermissionDenied Setup TeammateIdle TaskCreated TaskCompleted Elicitation ElicitationResult ConfigChange
    WorktreeCreate WorktreeRemove InstructionsLoaded CwdChanged FileChanged MessageDisplay""".split()
)
TOOL_EVENTS = frozenset("PreToolUse PostToolUse PostToolUseFailure PermissionRequest PermissionDenied".split())
WITHOUT_MATCHER = frozenset("UserPromptSubmit Stop StopFailure PostToolBatch TeammateIdle CwdChanged".split())
TOOLS = frozenset(
    """Agent AskUserQuestion Bash BashOutput CronCreate CronDelete CronList Edit EnterPlanMode EnterWorktree ExitPlanMode
    ExitWorktree Glob Grep KillShell ListMcpResourcesTool LSP Monitor MultiEdit NotebookEdit PowerShell Read
    ReadMcpResourceTool Skill SendMessage SlashCommand Task TaskCreate TaskGet TaskList TaskOutput TaskStop TaskUpdate
    TodoWrite ToolSearch WebFetch WebSearch Write""".split()
)
NEEDS = {"command": "command", "prompt": "prompt", "agent": "prompt", "http": "url", "mcp_tool": "tool"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file that can configure hooks. `root` is what CLAUDE_PLUGIN_ROOT will be for them: a plugin, a skill."""

    kind: str  # "managed" | "user" | "project" | "local" | "plugin" | "page": a skill, command or agent
    path: Path
    root: Path | None = None

    @property
    def dropped(self) -> str:
        """What the client does when one entry is wrong."""
        lost = "all hooks of this page" if self.kind == "page" else "this whole file, permission rules too"
        return f"Claude Code ignores {lost}, and does not say so."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one place: what it means and the exact way to put it right.

    An `error` means that a hook will not act as written, or that others can change what it runs.
    """

    code: str
    severity: str  # "error" | "warning" | "info"
    file: str
    pointer: str  # RFC 6901; empty for the whole file
    what: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ("code", "severity", "file", "pointer", "what", "fix")}

    def __str__(self) -> str:
        where = f"{self.file}#{self.pointer}" if self.pointer else self.file
        return f"{self.severity}[{self.code}] {where}\n    {self.what}\n    Fix: {self.fix}"


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook that Claude Code will load."""

    source: Source
    event: str
    matcher: str
    fields: Mapping[str, Any]
    pointer: str

    @property
    def command(self) -> str:
        command = self.fields.get("command")
        return command if self.fields.get("type") == "command" and isinstance(command, str) else ""

    def finding(self, code: str, severity: str, what: str, fix: str, field: str = "command") -> Finding:
        pointer = f"{self.pointer}/{field}" if field else self.pointer
        return Finding(code, severity, str(self.source.path), pointer, what, fix)


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and found. `ok` is the absence of errors; printing it is meant for people."""

    findings: tuple[Finding, ...]
    files: tuple[str, ...]
    hooks: int

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "hooks": self.hooks,
            "files": list(self.files),
            "findings": [f.as_dict() for f in self.findings],
        }

    def lines(self) -> Iterable[str]:
        if not self.files:
            yield "Hooks: no settings file was found, so none are configured."
            return
        counts = {level: sum(f.severity == level for f in self.findings) for level in ("error", "warning", "info")}
        told = (
            ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items() if count)
            or "no findings"
        )
        yield f"Hooks: {self.hooks} in {len(self.files)} file{'s' * (len(self.files) != 1)}; {told}."
        for finding in self.findings:
            yield str(finding)
        if self.ok:
            yield "Claude Code will run these hooks as they are written."
        else:
            yield "Claude Code does not report any of this: the hooks named above are skipped or can be changed by others."

    def __str__(self) -> str:
        return "\n".join(self.lines())
