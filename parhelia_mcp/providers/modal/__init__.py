"""Sandboxes on Modal, through its own SDK; the SDK is imported when the first call is made, not before."""

from parhelia_mcp.providers.modal.provider import Modal
from parhelia_mcp.providers.modal.settings import ModalSettings

__all__ = ["Modal", "ModalSettings"]
