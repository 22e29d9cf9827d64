"""`python -m parhelia_mcp` and `parhelia-mcp`: the MCP server on standard input and output."""

from __future__ import annotations


def main() -> None:
    from parhelia_mcp.mcp_server.serving import serve

    serve()


if __name__ == "__main__":
    main()
