"""Outside: make a result a ref of the user's repository, and nothing else of it different."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from parhelia_mcp import spec
from parhelia_mcp.errors import LocalFault, NotFound, Refused
from parhelia_mcp.workspace import archive
from parhelia_mcp.workspace.collect import BASE, BRANCHES, RESULT
from parhelia_mcp.workspace.git import Git, Place, locate, said, scratch

_HEADER_LIMIT = 64 << 10
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs/parhelia/(result|base|branches/[A-Za-z0-9][A-Za-z0-9._/+-]{0,150})")
_RUNS = re.compile(
    r"(^|/)(\.git[^/]*|\.claude|\.claude-plugin|\.mcp\.json|CLAUDE\.md|\.vscode|\.idea|\.zed|\.cursor|\.devcontainer|\.envrc|\.husky|\.circleci"
    r"|\.travis\.yml|\.pre-commit-config\.yaml|Jenkinsfile|azure-pipelines\.yml|bitbucket-pipelines\.yml|lefthook\.yml)(/|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Landed:
    """Where a result is now. Without git there is no ref: the archive itself is the result."""

    ref: str | None
    branch: str | None
    commit: str
    files_changed: int
    notes: tuple[str, ...]  # what the user should know, in sentences
    risky_paths: tuple[str, ...]  # changed files that may run something on the user's machine


def risky(paths: list[str]) -> tuple[str, ...]:
    """Those of `paths` that editors, git, agents or CI run by themselves."""
    return tuple(path for path in paths if _RUNS.search(path))


def land(source: Path, workspace: spec.Workspace, bundle: Path, *, task: str, number: int) -> Landed:
    """Make `refs/parhelia/TASK/N` the result in `bundle`, and the branch `parhelia/TASK` where that is only forward.

    May be called again with the same or a newer bundle. Raises Refused `bad-result` for a bundle that is damaged or
    asks for more than that, NotFound where the repository or the commit it grew from is gone; the bundle stays.
    """
    if workspace.head_commit is None and workspace.branch is None:
        about = archive.changes(bundle)
        paths = [*about["now"], *about["deleted"]]
        commit = archive.digest({**about["now"], **dict.fromkeys(about["deleted"], "")})
        return Landed(None, None, commit, len(paths), (), risky(paths))
    place = locate(source) if source.is_dir() else None
    if place is None:
        raise NotFound(
            "repository-missing",
            f"There is no git repository at {source} any more. The result is in {bundle}.",
            f"git clone {bundle}",
        )
    refs = take_in(place, bundle)
    result, base = refs[RESULT], refs.get(BASE) or workspace.head_commit
    git = Git(place.top, trusted=True)
    if workspace.head_commit and not _parents(git, result):
        result = git.id(
            "commit-tree",
            f"{result}^{{tree}}",
            "-p",
            workspace.head_commit,
            "-m",
            "All files of the session, whose own repository was gone",
        )
    result = _joined(git, result, task, number)
    ref = f"refs/parhelia/{task}/{number}"
    updates = {ref: result}
    updates |= {f"{ref}-base": refs[BASE]} if BASE in refs else {}
    updates |= {
        f"{ref}-branches/{name.removeprefix(BRANCHES)}": commit
        for name, commit in refs.items()
        if name.startswith(BRANCHES)
    }
    git(
        "update-ref", "--stdin", stdin="".join(f"update {name} {commit}\n" for name, commit in updates.items()).encode()
    )
    notes = [f"Commits the agent left on another branch are in {name}." for name in updates if "-branches/" in name]
    branch, note = _branch(git, task, result)
    paths = changed_paths(git, base or git.id("hash-object", "-t", "tree", os.devnull), result)
    return Landed(ref, branch, result, len(paths), (*notes, *note), risky(paths))


def take_in(place: Place, bundle: Path) -> dict[str, str]:
    """Check every object of `bundle` in quarantine, then add them to the repository; returns its refs."""
    refs, without, start = header(bundle)
    free = shutil.disk_usage(place.objects).free
    if bundle.stat().st_size > free // 2:
        raise LocalFault(
            "disk-full",
            f"The result has {bundle.stat().st_size:,} bytes and {free:,} are free. It stays in {bundle}.",
            "free some space",
        )
    with tempfile.TemporaryDirectory(prefix="tmp_objdir-parhelia-", dir=place.objects) as folder:
        git = scratch(Path(folder), place.top, config={}, sha256=place.sha256, alternates=[place.objects])
        if (place.common / "shallow").exists():
            shutil.copyfile(place.common / "shallow", Path(folder) / "shallow")
        gone = [commit for commit in without if git.ask("cat-file", "-e", f"{commit}^{{commit}}").returncode]
        if gone:
            hint = f"git -C {place.top} fetch --all, then pull again"
            raise NotFound(
                "base-missing",
                f"{gone[0][:12]}, which the result grew from, is no longer in {place.top}. It stays in {bundle}.",
                hint,
            )
        with bundle.open("rb") as pack:
            os.lseek(pack.fileno(), start, os.SEEK_SET)
            done = git.ask("index-pack", "--strict", "--fix-thin", "--stdin", stdin=pack.fileno())
        if done.returncode:
            raise Refused(
                "bad-result",
                f"git refuses the objects of the result: {said(done)}. Nothing landed.",
                f"the bundle is {bundle}",
            )
        wanted = "".join(f"{commit}\n" for commit in [*refs.values(), *(f"^{commit}" for commit in without)])
        done = git.ask("rev-list", "--objects", "--quiet", "--stdin", stdin=wanted.encode())
        if done.returncode:
            raise Refused(
                "bad-result", f"The result is not complete: {said(done)}. Nothing landed.", f"the bundle is {bundle}"
            )
        for path in sorted((Path(folder) / "objects/pack").iterdir(), key=lambda path: path.suffix == ".idx"):
            path.chmod(0o444)
            path.replace(place.objects / "pack" / path.name)
    return refs


def header(bundle: Path) -> tuple[dict[str, str], list[str], int]:
    """The refs of a result bundle, the commits it grew from, and where its pack starts; raises Refused `bad-result`."""
    with bundle.open("rb") as file:
        head, found, _ = file.read(_HEADER_LIMIT).partition(b"\n\n")
    lines = head.decode(errors="replace").split("\n")
    try:
        if not found or not re.fullmatch(r"# v[23] git bundle", lines[0]):
            raise ValueError("it is not a git bundle")
        rest = [line for line in lines[1:] if not line.startswith("@object-format=")]
        without = [line[1:].strip() for line in rest if line.startswith("-")]
        refs = {name: commit for commit, _, name in (line.partition(" ") for line in rest if not line.startswith("-"))}
        if bad := [
            name
            for name in refs
            if not _REF.fullmatch(name) or ".." in name or "//" in name or name.endswith((".lock", "/", "."))
        ]:
            raise ValueError(f"it names the ref {bad[0][:80]!r}")
        if RESULT not in refs or not all(_ID.fullmatch(commit) for commit in [*refs.values(), *without]):
            raise ValueError("it has no result")
    except ValueError as problem:
        raise Refused("bad-result", f"{bundle} is refused: {problem}. Nothing landed.", "") from None
    return refs, without, len(head) + 2


def changed_paths(git: Git, base: str, result: str) -> list[str]:
    raw = git("diff-tree", "-r", "-z", "--name-only", base, result)
    return [os.fsdecode(path) for path in raw.split(b"\0") if path]


def _parents(git: Git, commit: str) -> list[str]:
    return git("rev-list", "--parents", "--max-count=1", commit).decode().split()[1:]


def _joined(git: Git, result: str, task: str, number: int) -> str:
    """The result as one that comes after what the session before it left, so that the branch goes forward to it.

    What a session leaves uncommitted is a commit that the next one has as files only. The same for the same result.
    """
    names = git("for-each-ref", "--format=%(refname:lstrip=3)", f"refs/parhelia/{task}").decode().split()
    earlier = max((int(name) for name in names if name.isdecimal() and int(name) < number), default=0)
    before = f"refs/parhelia/{task}/{earlier}"
    if not earlier or git.ask("merge-base", "--is-ancestor", before, result).returncode == 0:
        return result
    when = git.id("show", "-s", "--format=%cI", result)
    dated = replace(git, variables={"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when})
    message = f"Session {number} instead of session {earlier}"
    return dated.id("commit-tree", f"{result}^{{tree}}", "-p", result, "-p", before, "-m", message)


def _branch(git: Git, task: str, commit: str) -> tuple[str | None, list[str]]:
    """Create or fast-forward the branch `parhelia/TASK`; its name, or None with the reason."""
    name = f"parhelia/{task}"
    lines = git(
        "for-each-ref",
        "--format=%(refname:lstrip=2)\t%(objectname)\t%(worktreepath)",
        "refs/heads/parhelia",
        f"refs/heads/{name}",
    )
    known = {line.split("\t")[0]: line.split("\t")[1:] for line in lines.decode(errors="replace").splitlines()}
    if "parhelia" in known:
        return None, ["A branch named parhelia stands in the way of a branch for the task; only the ref was made."]
    if below := [other for other in known if other.startswith(f"{name}/")]:
        return None, [f"The branch {below[0]} stands in the way of {name}; only the ref was made."]
    old, checked_out = known.get(name, ["", ""])
    if old == commit:
        return name, []
    if checked_out:
        return None, [f"{name} is checked out in {checked_out} and was left alone; only the ref was made."]
    if old and git.ask("merge-base", "--is-ancestor", old, commit).returncode:
        return None, [f"{name} has commits that the result has not and was left alone; only the ref was made."]
    done = git.ask("update-ref", f"refs/heads/{name}", commit, old or "0" * len(commit))
    return (None, [f"{name} was not made: {said(done)}."]) if done.returncode else (name, [])
