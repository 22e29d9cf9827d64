"""The loopback Modal, for faults of a provider."""

from tests.providers.conftest import loopback, server

__all__ = ["loopback", "server"]
