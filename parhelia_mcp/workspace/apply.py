"""Outside: bring a landed result into the user's working tree, three-way, all of it or nothing."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from parhelia_mcp import spec
from parhelia_mcp.errors import NotFound, Refused
from parhelia_mcp.workspace import archive
from parhelia_mcp.workspace.git import Git, Place, locate, said, settings
from parhelia_mcp.workspace.land import changed_paths, risky
from parhelia_mcp.workspace.pack import borrow, travelling
from parhelia_mcp.workspace.snapshot import snapshot


@dataclass(frozen=True, slots=True)
class Applied:
    """What came into the working tree; the index, HEAD and all refs stayed as they were."""

    files: tuple[str, ...]
    risky_paths: tuple[str, ...]  # of `files`, those that may run something on this machine


def apply(source: Path, workspace: spec.Workspace, result: str | Path) -> Applied:
    """Merge what the session changed into the files at `source`; nothing is touched unless all of it fits.

    `result` is the ref that `land` made, or the archive where the workspace has no git. The base of the three-way
    merge is the workspace as it was sent, so the user's own uncommitted work is no conflict with itself.
    Raises Refused `conflicts` with the files that both sides changed.
    """
    if isinstance(result, Path):
        names = archive.apply(source, result)
        return Applied(tuple(names), risky(names))
    place = locate(source)
    if place is None:
        raise NotFound("repository-missing", f"There is no git repository at {source} any more.", "")
    with tempfile.TemporaryDirectory(prefix="parhelia-apply.") as folder:
        config = settings(place)
        git = borrow(place, Path(folder), config)
        base = _base(git, place, workspace, result)
        theirs = Git(place.top, trusted=True).id("rev-parse", "--verify", f"{result}^{{tree}}")
        ours = snapshot(git, place.top, sha256=place.sha256, config=travelling(config))
        merged = _merge(git, base, ours, theirs)
        paths = changed_paths(git, ours, merged)
        if hidden := _hidden(git, place.top, ours, merged, paths):
            raise _conflict(", ".join(hidden[:20]))
        git("read-tree", ours)
        git.ask("update-index", "-q", "--refresh")
        done = git.ask("read-tree", "-m", "-u", ours, merged)
        if done.returncode:
            raise _conflict(said(done))
    return Applied(tuple(paths), risky(paths))


def _base(git: Git, place: Place, workspace: spec.Workspace, ref: str) -> str:
    """The tree that was sent: the user's HEAD of that time with the uncommitted work."""
    asked = Git(place.top, trusted=True)
    for name in (f"{ref}-base", workspace.head_commit):
        if name:
            done = asked.ask("rev-parse", "-q", "--verify", f"{name}^{{tree}}")
            if done.returncode == 0:
                return done.stdout.decode().strip()
    return git.id("hash-object", "-w", "-t", "tree", os.devnull)


def _merge(git: Git, base: str, ours: str, theirs: str) -> str:
    """The merged tree; commits on one root give git the base, which it takes from history alone."""
    root = git.id("commit-tree", base, "-m", "base")
    sides = [git.id("commit-tree", tree, "-p", root, "-m", "side") for tree in (ours, theirs)]
    done = git.ask("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", *sides)
    tree, *clashing = (part for part in done.stdout.split(b"\0") if part)
    if done.returncode == 0:
        return tree.decode()
    raise _conflict(", ".join(os.fsdecode(path) for path in dict.fromkeys(clashing[:20])))


def _hidden(git: Git, top: Path, ours: str, merged: str, paths: list[str]) -> list[str]:
    """Ignored files of the user's that lie where the result brings something: git itself would overwrite them."""
    new = git("diff-tree", "-r", "-z", "--name-only", "--diff-filter=A", ours, merged).split(b"\0")
    known, found = set(paths), []
    for name in (os.fsdecode(path) for path in new if path):
        path = top / name
        if path.is_dir() and not path.is_symlink():
            found += [str(inner.relative_to(top)) for inner in path.rglob("*") if not inner.is_dir()]
        else:
            there = [path, *path.parents[: len(path.relative_to(top).parts) - 1]]
            found += [str(part.relative_to(top)) for part in there if part.is_symlink() or part.is_file()]
    gone = known - {os.fsdecode(path) for path in new}
    return [name for name in found if name not in gone]


def _conflict(what: str) -> Refused:
    return Refused(
        "conflicts",
        f"Changed here and in the session: {what}. Nothing was touched.",
        "commit or move your changes, or merge the branch with git",
    )
