"""What is known of a checkpoint besides its files: the manifest of `FORMAT.md` section 5."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from parhelia_mcp.checkpoint.faults import damaged
from parhelia_mcp.checkpoint.packs import PackRef
from parhelia_mcp.model import moment

FORMAT = "parhelia-checkpoint/1"
TRIGGERS = ("periodic", "risky", "detach", "error", "complete", "shutdown", "manual", "safety")
MAX_BYTES = 64 << 20
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    turns: int = 0
    tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """Which agent ran, and where in the checkpoint its conversation lies."""

    kind: str = ""
    version: str | None = None
    session_id: str | None = None
    cwd: str | None = None
    transcript: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What whoever asks for a checkpoint says of it; the files say the rest."""

    trigger: str
    task: str | None = None
    session: str | None = None
    consistent: bool = True
    pending_tool: str | None = None
    counters: Counters = Counters()
    agent: AgentFacts = AgentFacts()
    env_names: tuple[str, ...] = ()
    tmux: str | None = None
    pinned: bool = False
    expires_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    path_b64: str
    why: str

    @classmethod
    def of(cls, path: bytes, why: str) -> Skipped:
        return cls(path_b64=base64.b64encode(path).decode(), why=why)

    @property
    def path(self) -> str:
        return base64.b64decode(self.path_b64).decode(errors="surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Facts):
    """One checkpoint. `hash` is its whole name; `id` its start."""

    hash: str = ""
    parent: str | None = None
    created_at: str
    skipped: tuple[Skipped, ...] = ()
    changed: tuple[str, ...] = ()  # undecodable bytes as surrogates
    tree: str
    packs: tuple[PackRef, ...]
    files: int
    bytes: int

    @property
    def id(self) -> str:
        return f"cp-{self.hash[:8]}"

    @property
    def partial(self) -> bool:
        return bool(self.skipped or self.changed)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all packs it needs; other checkpoints may need them too."""
        return sum(pack.bytes for pack in self.packs)

    def as_dict(self) -> dict[str, Any]:
        """The fields of CONTRACTS section 7."""
        value = asdict(self)
        del value["hash"]
        value |= {"format": FORMAT, "id": self.id, "partial": self.partial, "snapshot": None}
        value["packs"] = [pack._asdict() for pack in self.packs]
        value["changed"] = [_text(path) for path in self.changed]
        return value

    def encode(self) -> bytes:
        return _canonical(self.as_dict()) + b"\n"

    def named(self) -> Manifest:
        """The same manifest with the hash that its text gives it."""
        from blake3 import blake3

        value = self.as_dict()
        del value["id"]
        return replace(self, hash=blake3(_canonical(value)).hexdigest())


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _text(path: str) -> str | dict[str, str]:
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"b64": base64.b64encode(path.encode(errors="surrogateescape")).decode()}
    return path


def _path(value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return value
    return base64.b64decode(value["b64"]).decode(errors="surrogateescape")


@lru_cache(maxsize=256)  # the bytes of a manifest never mean anything else
def decode(data: bytes, name: str) -> Manifest:
    """The manifest in a file called `name`; raises Corrupted where a single byte is not what was written."""
    from blake3 import blake3

    what = f"Checkpoint cp-{name[:8]}"
    try:
        raw = json.loads(data)
        body = {key: value for key, value in raw.items() if key != "id"}
        if blake3(_canonical(body)).hexdigest() != name or _canonical(raw) + b"\n" != data:
            raise damaged(f"The manifest of {what} does not match its hash")
        manifest = _build(raw, name)
        _check(manifest)
        if manifest.encode() != data:
            raise damaged(f"The manifest of {what} has fields that contradict each other")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise damaged(f"The manifest of {what} is not one of format {FORMAT}") from None
    return manifest


def _build(raw: dict[str, Any], name: str) -> Manifest:
    if raw["format"] != FORMAT:
        raise damaged(
            f"Checkpoint cp-{name[:8]} has the format {str(raw['format'])[:40]!r}, this program knows {FORMAT}"
        )
    known = {field.name for field in fields(Manifest)} - {"hash"}
    plain = {key: value for key, value in raw.items() if key in known}
    return Manifest(
        **{
            **plain,
            "hash": name,
            "counters": Counters(**raw["counters"]),
            "agent": AgentFacts(**raw["agent"]),
            "env_names": tuple(raw["env_names"]),
            "skipped": tuple(Skipped(**skipped) for skipped in raw["skipped"]),
            "changed": tuple(_path(path) for path in raw["changed"]),
            "packs": tuple(PackRef(**pack) for pack in raw["packs"]),
        }
    )


def _check(manifest: Manifest) -> None:
    if manifest.trigger not in TRIGGERS or not HASH.fullmatch(manifest.tree):
        raise ValueError
    for count in (manifest.files, manifest.bytes, *(pack.bytes for pack in manifest.packs)):
        if type(count) is not int or count < 0:
            raise ValueError
    for pack in manifest.packs:
        if not HASH.fullmatch(pack.hash) or pack.name != f"{pack.hash}.pack":
            raise ValueError
    if any(type(flag) is not bool for flag in (manifest.consistent, manifest.pinned)):
        raise ValueError
    moment(manifest.created_at)
    if manifest.expires_at is not None:
        moment(manifest.expires_at)
    for skipped in manifest.skipped:
        base64.b64decode(skipped.path_b64, validate=True)
