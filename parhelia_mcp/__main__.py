"""`python -m parhelia_mcp` and `parhelia-mcp`: the MCP server on standard input and output."""

from __future__ import annotations

import os


def main() -> None:
    wire = os.dup(1)
    os.dup2(2, 1)  # what a library prints while it loads is not for the client
    from parhelia_mcp.mcp_server.serving import serve

    serve(wire)


if __name__ == "__main__":
    main()
