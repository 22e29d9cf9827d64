"""The keys of one session: made at submit, never used for another.

Both halves are made here, so the host key is known before there is a host: it is pinned, never trusted on first use.
The sandbox gets the host's private key and the client's public key over the runner's credential channel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parhelia_mcp import files


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a session's keys lie: `client`, `host` (private, 0600) and the public halves `*.pub`."""

    session: str
    directory: Path

    @property
    def client(self) -> Path:
        return self.directory / "client"

    @property
    def host_public(self) -> str:
        return (self.directory / "host.pub").read_text().strip()

    def for_sandbox(self) -> Mapping[str, str]:
        """What the runner needs of them, for `SandboxSpec.credential`."""
        return {
            "PARHELIA_SSH_HOST_KEY": (self.directory / "host").read_text(),
            "PARHELIA_SSH_CLIENT_KEY": (self.directory / "client.pub").read_text().strip(),
        }


def make(home: Path, session: str) -> Keys:
    """The keys of `session` under `home`; the same ones however often, and by whomever, they are asked for."""
    keys = Keys(session, home / "keys" / session)
    if keys.directory.exists():
        return keys
    draft = files.private_dir(home / "keys" / f".{session}.{os.urandom(4).hex()}")
    for name in ("client", "host"):
        private, public = _pair()
        files.replace(draft / name, private)
        files.replace(draft / f"{name}.pub", public + b"\n")
    try:
        draft.rename(keys.directory)
    except OSError:  # somebody was first: theirs are the keys
        shutil.rmtree(draft)
    return keys


def of(home: Path, session: str) -> Keys | None:
    """The keys that `make` made for `session`, or None where it was never started from here."""
    keys = Keys(session, home / "keys" / session)
    return keys if keys.directory.is_dir() else None


def forget(home: Path, session: str) -> None:
    """Delete the keys of a session that has ended."""
    shutil.rmtree(home / "keys" / session, ignore_errors=True)


def _pair() -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public
