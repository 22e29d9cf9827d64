"""`from parhelia.hook_validator import HookValidator`."""

from parhelia_mcp.hook_validator import Finding, HookValidator, Report

__all__ = ["Finding", "HookValidator", "Report"]
