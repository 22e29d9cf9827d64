"""Inside: everything the agent did as one file, without touching its index, HEAD or branches."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from parhelia_mcp import spec
from parhelia_mcp.workspace import archive
from parhelia_mcp.workspace.git import Git, scratch, write_bundle
from parhelia_mcp.workspace.snapshot import snapshot

RESULT, BASE, BRANCHES = "refs/parhelia/result", "refs/parhelia/base", "refs/parhelia/branches/"
_MOST_BRANCHES = 50


@dataclass(frozen=True, slots=True)
class Collected:
    """A result bundle that was written. `commit` is the newest commit, or the digest of a directory without git."""

    commit: str
    files_changed: int
    bytes: int


def collect(target: Path, workspace: spec.Workspace, bundle: Path, *, session: str, message: str) -> Collected | None:
    """Write what differs from what was sent into `bundle`; None, and no file, where nothing does.

    May be called again at any time, while the agent works too. `message` is the first line of the last commit, which
    holds what the agent left uncommitted.
    """
    if workspace.head_commit is None and workspace.branch is None:
        written = archive.collect(target, bundle)
        return Collected(*written) if written else None
    with tempfile.TemporaryDirectory(prefix=".collect.", dir=bundle.parent) as folder:
        work = _open(target, workspace, Path(folder))
        text = f"{message}\n\nParhelia-Session: {session}\n"
        refs, changed = _refs(work, workspace, text) if work.base else _orphan(work, text)
        if not refs:
            return None
        draft = Path(folder) / "bundle"
        without = [workspace.head_commit] if workspace.head_commit and work.base else []
        write_bundle(work.git, draft, refs=refs, without=without, sha256=work.sha256)
        draft.replace(bundle)
    return Collected(refs[RESULT], changed, bundle.stat().st_size)


@dataclass(frozen=True, slots=True)
class _Work:
    """The agent's repository as read through a private one, whose configuration the agent cannot set."""

    git: Git
    theirs: Git
    top: Path
    tree: str  # all files as they are now
    base: str | None  # the base commit; None where the agent's repository is gone or broken
    tip: str | None  # the agent's HEAD
    sha256: bool


def _open(target: Path, workspace: spec.Workspace, folder: Path) -> _Work:
    git_dir = target / ".git"
    sha256 = len(workspace.base_commit or "") == 64
    alive = git_dir.is_dir() and not git_dir.is_symlink()
    theirs = Git(target, {"GIT_DIR": str(git_dir)})
    git = scratch(
        folder / "git",
        target,
        config=_conversions(theirs) if alive else {},
        sha256=sha256,
        alternates=[git_dir / "objects"] if alive else [],
    )
    for name in ("index", "shallow", "info/exclude", "info/attributes"):
        if alive and (git_dir / name).is_file() and not (git_dir / name).is_symlink():
            shutil.copyfile(git_dir / name, folder / "git" / name)
    tree = snapshot(git, target, sha256=sha256, config={}, lenient=True)
    sound = (
        alive
        and workspace.base_commit
        and git.ask("cat-file", "-e", f"{workspace.base_commit}^{{tree}}").returncode == 0
    )
    head = theirs.ask("rev-parse", "-q", "--verify", "HEAD^{commit}") if sound else None
    tip = head.stdout.decode().strip() if head and head.returncode == 0 else None
    return _Work(git, theirs, target, tree, workspace.base_commit if sound else None, tip, sha256)


def _conversions(theirs: Git) -> dict[str, str]:
    """How this repository turns line ends; nothing else of the agent's configuration is believed."""
    done = theirs.ask("config", "--local", "-z", "--get-regexp", r"^core\.(autocrlf|eol|filemode|symlinks|ignorecase)$")
    return dict(entry.split("\n", 1) for entry in done.stdout.decode(errors="replace").split("\0") if "\n" in entry)


def _orphan(work: _Work, message: str) -> tuple[dict[str, str], int]:
    commit = work.git.id("commit-tree", work.tree, "-F", "-", stdin=message.encode())
    return {RESULT: commit}, work.git("ls-tree", "-r", "-z", "--name-only", work.tree).count(b"\0")


def _refs(work: _Work, workspace: spec.Workspace, message: str) -> tuple[dict[str, str], int]:
    """The refs of the result, none where nothing changed, and how many files differ from what was sent."""
    git, head = work.git, workspace.head_commit
    links = _links(work, head) if head else {}
    base, tree = work.base or "", work.tree
    if links:
        tree = _relink(work, tree, {path: link for path, link in links.items() if _same(git, path, tree, base)})
        linked = _relink(work, f"{base}^{{tree}}", links)
        base = (
            head
            if linked == git.id("rev-parse", f"{head}^{{tree}}")
            else git.id("commit-tree", linked, "-p", head or "", "-m", "Your uncommitted work")
        )
    parent = work.tip if work.tip and work.tip != head else base
    same = git.id("rev-parse", f"{parent}^{{tree}}") == tree
    result = parent if same else git.id("commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode())
    branches = _branches(work, {head, work.tip, work.base}, result)
    if result == base and not branches:
        return {}, 0
    refs = {RESULT: result} | ({BASE: base} if base != head else {}) | branches
    return refs, git("diff-tree", "-r", "-z", "--name-only", base, result).count(b"\0")


def _links(work: _Work, head: str) -> dict[str, str]:
    """Submodules of the user's HEAD: path -> commit. Their files travelled plain and are links again where unchanged."""
    if not (work.top / ".gitmodules").exists():
        return {}
    entries = (entry.partition(b"\t") for entry in work.git("ls-tree", "-r", "-z", head).split(b"\0"))
    return {
        path.decode(errors="surrogateescape"): about.split()[2].decode()
        for about, _, path in entries
        if about.startswith(b"160000 ")
    }


def _same(git: Git, path: str, tree: str, base: str) -> bool:
    one, other = (git.ask("rev-parse", "-q", "--verify", f"{whole}:{path}").stdout for whole in (tree, base))
    return one == other


def _relink(work: _Work, tree: str, links: dict[str, str]) -> str:
    work.git("read-tree", tree)
    for path, commit in links.items():
        work.git("rm", "-r", "-f", "-q", "--cached", "--ignore-unmatch", "--", f":(top,literal){path}")
        work.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    return work.git.id("write-tree")


def _branches(work: _Work, known: set[str | None], result: str) -> dict[str, str]:
    """Commits the agent left on branches that the result does not contain."""
    lines = work.theirs.ask("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads").stdout
    heads = [line.split(" ", 1) for line in lines.decode(errors="replace").splitlines()]
    new = [(commit, name) for commit, name in heads if commit not in known and name.isascii()][:_MOST_BRANCHES]
    return {
        BRANCHES + name: commit
        for commit, name in new
        if work.git.ask("merge-base", "--is-ancestor", commit, result).returncode == 1
    }
