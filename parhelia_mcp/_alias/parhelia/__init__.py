"""The import name `parhelia`, for people who expect it; the package is `parhelia_mcp`."""
