"""The MCP server inside a session that may hand work on: two tools, each one question to the runner.

Started by Claude Code as `python -I -S delegate_server.py`, with the runner's socket in `PARHELIA_CONTROL`; standard
library only, because the first request of the client does not wait for a server that is slow. It holds nothing: the
runner knows what was handed on, and asks whoever may decide.
"""

import json
import sys
import threading

sys.path.append(__file__.rpartition("/parhelia_mcp/")[0])

from parhelia_mcp.inside.session_call import ask

USD = {"type": "number", "exclusiveMinimum": 0}
TEXT = {"type": "string"}
TOOLS = [
    {
        "name": "submit",
        "description": "Hand a task to a separate agent that works on a copy of this workspace as it is now. It sees the files, "
        "not this conversation. max_usd is taken out of what this session may still spend, for good: keep enough for "
        "yourself. Returns task_id at once. What it makes becomes a branch for the user; it does not come back here.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "prompt": {**TEXT, "description": "What it shall do, and how to see that it is done"},
                "max_usd": {**USD, "description": "Most it may spend, compute and tokens"},
                "timeout_hours": {"type": "number", "exclusiveMinimum": 0, "description": "It ends then"},
                "model": {**TEXT, "description": "Default: yours"},
                "idempotency_key": {**TEXT, "description": "Same key, same task: safe to retry"},
            },
            "required": ["prompt", "max_usd"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": False, "openWorldHint": True},
    },
    {
        "name": "status",
        "description": "State, cost, branch and last words of a task that this session handed on.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "task_id": TEXT,
                "wait_s": {"type": "number", "minimum": 0, "maximum": 600, "description": "Wait so long for its end"},
            },
            "required": ["task_id"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True},
    },
]
OPS = {"submit": "submit", "status": "task"}  # a tool's question to the runner


def called(name, arguments):
    """The result of one call."""
    try:
        text, failed = json.dumps(ask(OPS.get(name, str(name)), arguments)), False
    except (OSError, ValueError, KeyError, TypeError) as problem:
        text, failed = str(problem), True
    return {"content": [{"type": "text", "text": text}], "isError": failed}


def answered(message):
    """The answer to a request of the client."""
    method, given = message.get("method"), message.get("params") or {}
    if method == "initialize":
        own = {"name": "parhelia", "version": "1"}
        return {"protocolVersion": given.get("protocolVersion"), "capabilities": {"tools": {}}, "serverInfo": own}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return called(given.get("name"), given.get("arguments") or {})
    return {} if method == "ping" else None


def main():
    writing = threading.Lock()

    def answer(message):
        result = answered(message)
        error = {"code": -32601, "message": "not one of this server's methods"}
        body = {"error": error} if result is None else {"result": result}
        with writing:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}) + "\n")
            sys.stdout.flush()

    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message.get("id") is not None:  # a call may wait for long, others must not wait for it
            threading.Thread(target=answer, args=(message,), daemon=True).start()


if __name__ == "__main__":
    main()
