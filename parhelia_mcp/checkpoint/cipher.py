"""Names objects by their hash and seals blocks, with a key or without (`FORMAT.md` section 2)."""

from __future__ import annotations

import os
from functools import cached_property

from parhelia_mcp.checkpoint.faults import damaged
from parhelia_mcp.errors import Refused

PLAIN = bytes(8)
KEY_HINT = "put back keys/checkpoint in PARHELIA_HOME as it was when the checkpoint was made"


class Cipher:
    """Names objects and seals blocks, with a key or without."""

    def __init__(self, key: bytes | None) -> None:
        from blake3 import blake3

        self._hash = blake3
        self._key = key
        self.name = PLAIN
        self._id_key = None
        if key is not None:
            self.name = self._derive("name")[:8]
            self._id_key = self._derive("ids")

    def _derive(self, use: str) -> bytes:
        return self._hash(self._key, derive_key_context=f"parhelia checkpoint 1 {use}").digest()

    @cached_property
    def _aead(self):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derive("frames"))

    def identify(self, data: bytes) -> bytes:
        if self._id_key is None:
            return self._hash(data).digest()
        return self._hash(data, key=self._id_key).digest()

    def seal(self, data: bytes, compressor) -> bytes:
        block = compressor.compress(data)
        if self._key is None:
            return block
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, block, None)

    def open(self, block: bytes, size: int) -> bytes:
        """The `size` bytes that were sealed; raises Corrupted for anything else, before it takes more memory."""
        import zstandard

        try:
            if self._key is not None:
                from cryptography.exceptions import InvalidTag

                try:
                    block = self._aead.decrypt(block[:12], block[12:], None)
                except (InvalidTag, ValueError):
                    raise damaged("An encrypted block does not open with its key") from None
            if zstandard.frame_content_size(block) != size:
                raise damaged("A block does not have the size its index says")
            return zstandard.ZstdDecompressor().decompress(block, max_output_size=size)
        except zstandard.ZstdError:
            raise damaged("A compressed block is torn") from None


def cipher_for(key_name: bytes, key: bytes | None, what: str) -> Cipher:
    """The cipher of a pack that names its key; raises Refused `key-needed`, `wrong-key`."""
    if key_name == PLAIN:
        return Cipher(None)
    if key is None:
        raise Refused("key-needed", f"{what} is encrypted.", KEY_HINT)
    cipher = Cipher(key)
    if cipher.name != key_name:
        raise Refused("wrong-key", f"{what} was encrypted with another key.", KEY_HINT)
    return cipher
