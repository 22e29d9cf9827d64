"""The agent's user, where the agent has one of its own: it reaches its workspace and its home, and nothing of ours."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Owner:
    name: str
    uid: int
    gid: int

    def as_arguments(self) -> dict[str, Any]:
        """What makes subprocess start a program as this user and no more."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make everything at `path` this user's, and every directory above it passable. Follows no symlink."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for _, folders, names, descriptor in os.fwalk(path) if path.is_dir() else ():
            for name in (*folders, *names):
                os.chown(name, self.uid, self.gid, dir_fd=descriptor, follow_symlinks=False)
        for above in path.resolve().parents:
            mode = above.stat().st_mode
            if mode & 0o001 == 0:
                above.chmod(mode | 0o011)


def find(name: str | None) -> Owner | None:
    """The user, or None where that is whom we run as. Raises KeyError for one that does not exist."""
    if name is None:
        return None
    entry = pwd.getpwnam(name)
    return None if entry.pw_uid == os.getuid() else Owner(name, entry.pw_uid, entry.pw_gid)
