"""A working tree as one git tree object, nested repositories included as plain files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from parhelia_mcp.errors import Refused
from parhelia_mcp.workspace.git import Git, said, scratch


def snapshot(git: Git, top: Path, *, sha256: bool, config: dict[str, str], lenient: bool = False) -> str:
    """The tree of everything in `top` that is not ignored, written with `git`'s private index and objects.

    Raises Refused `unreadable-files` for what cannot be read; `lenient` takes the rest, and does without a bad index.
    """
    nested: list[bytes] = []
    added = git.ask("add", "-A", ".")
    if added.returncode and lenient and git.ask("ls-files").returncode:
        Path(git.variables["GIT_INDEX_FILE"]).unlink(missing_ok=True)
    if added.returncode:  # a nested repository without a commit stops git altogether: go round it
        nested = _nested(git)
        around = b"\0".join([b".", *(b":(exclude,top,literal)" + path for path in nested)])
        how = ["--ignore-errors"] if lenient else []
        added = git.ask("add", "-A", *how, "--pathspec-from-file=-", "--pathspec-file-nul", stdin=around)
    if added.returncode and not lenient:
        hint = "make them readable, or ignore them in .gitignore"
        raise Refused("unreadable-files", f"git cannot take in {top}: {said(added)}", hint)
    if nested or b"embedded git repository" in added.stderr or (top / ".gitmodules").exists():
        for path in dict.fromkeys([*nested, *gitlinks(git)]):
            _flatten(git, top, path, sha256=sha256, config=config, lenient=lenient)
    return git.id("write-tree")


def _nested(git: Git) -> list[bytes]:
    names = git("ls-files", "-z", "--others", "--exclude-standard").split(b"\0")
    return [name.rstrip(b"/") for name in names if name.endswith(b"/")]


def gitlinks(git: Git) -> list[bytes]:
    """The paths at which the index has the link to a commit of another repository."""
    staged = git("ls-files", "-z", "--stage").split(b"\0")
    return [entry.partition(b"\t")[2] for entry in staged if entry.startswith(b"160000 ")]


def _flatten(git: Git, top: Path, path: bytes, *, sha256: bool, config: dict[str, str], lenient: bool) -> None:
    """Put the files of the repository at `path` into the index in place of a link to its commit."""
    inner = top / os.fsdecode(path)
    if inner.is_symlink() or not inner.is_dir() or not any(inner.iterdir()):
        return  # not populated: the link alone travels
    with tempfile.TemporaryDirectory(prefix="nested.", dir=git.variables["GIT_DIR"]) as folder:
        objects = Path(git.variables["GIT_DIR"]) / "objects"
        within = scratch(Path(folder), inner, config=config, sha256=sha256, alternates=[])
        within = Git(inner, {**within.variables, "GIT_OBJECT_DIRECTORY": str(objects)})
        tree = snapshot(within, inner, sha256=sha256, config=config, lenient=lenient)
    git("update-index", "-z", "--force-remove", "--stdin", stdin=path + b"\0")
    git("read-tree", f"--prefix={os.fsdecode(path)}/", tree)
