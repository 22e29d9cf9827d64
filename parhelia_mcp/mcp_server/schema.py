"""Tool definitions as small as they can be said: hosts send them to the model with every conversation."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver.tools import Tool


def compact(tool: Tool) -> Tool:
    """The tool with a schema without generated titles and null alternatives, closed to unknown arguments.

    A null is still taken where the argument may be left out; it is only no longer advertised.
    """
    properties = {name: _plain(schema) for name, schema in tool.parameters.get("properties", {}).items()}
    tool.parameters = {
        "type": "object",
        "properties": properties,
        **{key: tool.parameters[key] for key in ("required", "$defs") if key in tool.parameters},
        "additionalProperties": False,
    }
    return tool


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key != "title"}
    if kept.get("default", ...) is None:
        del kept["default"]
    choices = [choice for choice in kept.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        del kept["anyOf"]
        kept = {**choices[0], **kept}
    return kept
