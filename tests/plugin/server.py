#!/usr/bin/python3
"""An MCP server with the six tools' names that answers what it was asked; stands in for `parhelia-mcp`."""

import json
import sys

NAMES = ("submit", "status", "logs", "checkpoint", "budget", "recover")


def answer(request):
    method = request["method"]
    if method == "initialize":
        about = {"name": "parhelia", "version": "0"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": f"the tool {request['params']['name']} ran"}]}
    return {}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}), flush=True)
