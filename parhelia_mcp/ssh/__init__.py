"""Reaching a session by ssh: its keys, the system's client and what its failures mean, the port on this machine."""
