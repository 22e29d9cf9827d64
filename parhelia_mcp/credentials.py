"""Where the agent's credential comes from: a reference in the settings, resolved for the runner and never stored."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from parhelia_mcp import files
from parhelia_mcp.context import Context
from parhelia_mcp.errors import LocalFault, Refused, Unreachable

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credential:
    """`values` go to the runner over a descriptor; `secrets` are names of secrets that the provider keeps."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.values.get("kind", "api-key" if self.secrets else "none")


NONE = Credential()


def resolve(ctx: Context) -> Credential:
    """The credential that `[agent] credential` names. Raises Unreachable `credential-missing`: another shell may have it."""
    how, _, what = ctx.loaded.config.agent.credential.partition(":")
    if how == "modal-secret":
        return Credential(secrets=(what,))
    if how == "file":
        return _classified(what, _from_file(Path(what).expanduser()))
    value = ctx.environ.get(what, "").strip()
    if not value:
        raise Unreachable(
            "credential-missing",
            f"{what} is not set in this environment, so Claude Code could not work; nothing was started.",
            f'export {what}=..., or name another source in {_where()}: [agent] credential = "file:PATH"',
        )
    return _classified(what, value)


def _where() -> str:
    return "~/.config/parhelia/parhelia.toml"


def _from_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        value = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise Unreachable(
            "credential-missing",
            f"The credential file {path} cannot be read ({problem}); nothing was started.",
            f"put the key into {path} and chmod 600 it, or set [agent] credential in {_where()}",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Refused(
            "credential-exposed",
            f"{path} can be read by others (mode {mode & 0o777:o}); nothing was started.",
            f"chmod 600 {path}",
        )
    if not value:
        raise Unreachable(
            "credential-missing",
            f"The credential file {path} is empty; nothing was started.",
            f"put the key into {path}",
        )
    return value


def _classified(name: str, value: str) -> Credential:
    oauth = value.startswith("sk-ant-oat") or "OAUTH" in name.upper()
    return Credential({"kind": "oauth" if oauth else "api-key", "value": value})


def checkpoint_key(ctx: Context, *, make: bool = False) -> bytes | None:
    """The one key of encrypted checkpoints, `keys/checkpoint`; with `make` it is made where there is none yet.

    Raises LocalFault `bad-key`.
    """
    path = ctx.home / "keys" / "checkpoint"
    if make and not path.exists():
        _make_key(path)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(key) != KEY_BYTES:
        raise LocalFault(
            "bad-key", f"{path} has {len(key)} bytes instead of {KEY_BYTES}; nothing was done.", f"put back {path}"
        )
    return key


def _make_key(path: Path) -> None:
    draft = files.private_dir(path.parent) / f".checkpoint.{os.urandom(4).hex()}"
    files.replace(draft, os.urandom(KEY_BYTES), durable=True)
    with suppress(FileExistsError):  # who is first makes the key
        os.link(draft, path)
        files.sync_dir(path.parent)
    draft.unlink()
