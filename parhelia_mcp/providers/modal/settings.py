"""What of the configuration the Modal provider needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLAUDE_VERSION = "2.1.197"  # the Claude Code of an image that we build
LONGEST_HOURS = 24.0  # Modal ends every sandbox then
GPUS = ("T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB", "H100", "H200", "B200")
ALIASES = {"A10G": "A10"}


@dataclass(frozen=True, slots=True)
class ModalSettings:
    """The `[modal]` section. `image` is a registry reference and `dockerfile` a file; either replaces our base."""

    app: str = "parhelia"
    volume: str = "parhelia"
    environment: str | None = None
    region: str | None = None
    longest_hours: float = LONGEST_HOURS  # of one sandbox
    cloud: str | None = None
    image: str | None = None
    dockerfile: Path | None = None
    apt: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()  # shell commands of the image's build
    secrets: tuple[str, ...] = ()  # `NAME:KEY,KEY`: what it must have, and the agent may see
    claude_version: str = CLAUDE_VERSION

    def variables(self) -> list[str]:
        """The variables of all secrets that the agent may see."""
        return list(dict.fromkeys(key for entry in self.secrets for key in keys_of(entry)))


def keys_of(entry: str) -> list[str]:
    """The keys that a secret `NAME:KEY,KEY` must have; none for `NAME`."""
    return [key for key in entry.partition(":")[2].split(",") if key]
