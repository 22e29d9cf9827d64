"""Directories with everything in them that backups lose, and a description of one to compare with."""

from __future__ import annotations

import os
import random
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

from parhelia_mcp.checkpoint.create import Source, create
from parhelia_mcp.checkpoint.manifest import Facts, Manifest
from parhelia_mcp.checkpoint.store import Store

OLD = 1_600_000_000_123_456_789


def take(store: Store, workspace: Path, **options: Any) -> Manifest:
    exclude = options.pop("exclude", ())
    trigger = options.pop("trigger", "manual")
    return create(store, [Source("workspace", workspace, tuple(exclude))], Facts(trigger=trigger), **options)


def describe(root: Path) -> dict[bytes, tuple]:
    """All that a checkpoint promises to keep of a directory, by path."""
    found: dict[bytes, tuple] = {}
    links: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(root)
    for folder, folders, names in os.walk(base):
        for name in sorted([*folders, *names, *([b"."] if folder == base else [])]):
            path = folder + b"/" + name
            info = os.lstat(path)
            if stat.S_ISSOCK(info.st_mode):
                continue
            kind, body = stat.S_IFMT(info.st_mode), None
            if kind == stat.S_IFREG:
                body = Path(os.fsdecode(path)).read_bytes()
            elif kind == stat.S_IFLNK:
                body = os.fsencode(Path(os.fsdecode(path)).readlink())
            attributes = ()
            if kind in (stat.S_IFREG, stat.S_IFDIR):
                attributes = tuple((one, os.getxattr(path, one)) for one in sorted(os.listxattr(path)))
            first = links.setdefault((info.st_dev, info.st_ino), path[len(base) :]) if kind == stat.S_IFREG else None
            mode = stat.S_IMODE(info.st_mode)
            found[path[len(base) :]] = (kind, mode, info.st_mtime_ns, body, attributes, first)
    return found


def git(folder: Path, *argv: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", *argv]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def hard_cases(root: Path) -> None:
    """Fill `root`; the names say what is hard about each."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "empty" / "in" / "empty").mkdir(parents=True)
    (root / "zero").touch()
    (root / "a.txt").write_text("hello\n")
    (root / ".env").write_text("KEY=1")
    (root / "script.sh").write_text("#!/bin/sh\n")
    (root / "script.sh").chmod(0o751)
    (root / "hidden").write_bytes(os.urandom(300))
    (root / "hidden").chmod(0o000)
    (root / "large.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    (root / "dangling").symlink_to("nowhere/at all")
    (root / "to-directory").symlink_to("empty")
    (root / "outside").symlink_to("/etc/passwd")
    os.link(root / "a.txt", root / "empty" / "twin")
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(5_000_000)
        sparse.write(b"middle")
        sparse.truncate(50_000_000)
    os.mkfifo(root / "fifo", 0o640)
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff\xfe")).write_text("x")
    (root / "new\nline").write_text("x")
    (root / ("n" * 255)).write_text("long")
    (root / "locked").mkdir()
    (root / "locked" / "inside").write_text("in 0555")
    os.setxattr(root / "a.txt", "user.note", b"\0\xff value")
    os.setxattr(root / "locked", "user.folder", b"yes")
    git(root, "init", "-q")
    git(root, "add", "a.txt", "script.sh")
    git(root, "commit", "-qm", "first")
    (root / "script.sh").write_text("#!/bin/sh\nexit 1\n")
    git(root, "stash", "-q")
    (root / "nested").mkdir()
    git(root / "nested", "init", "-q")
    (root / "nested" / "file").write_text("nested")
    git(root / "nested", "add", ".")
    git(root / "nested", "commit", "-qm", "nested")
    (root / "locked").chmod(0o555)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(OLD, OLD + len(path.name)), follow_symlinks=False)


def add_socket(root: Path) -> None:
    here = Path.cwd()
    os.chdir(root)  # a socket's path may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)


def flat(root: Path, count: int, *, seed: int = 1) -> None:
    """Many small files in nested directories."""
    dice = random.Random(seed)
    for number in range(count):
        folder = root / f"d{number % 17}" / f"e{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(dice.randbytes(dice.randrange(0, 3000)))
