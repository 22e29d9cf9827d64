"""The MCP door: the same verbs as the command line, as six tools, resources and prompts. Decides nothing.

Read-only tools touch nothing outside PARHELIA_HOME. Verbs are synchronous and run in threads, so that a slow one never
holds the connection.
"""
