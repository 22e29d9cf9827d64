"""Call git so that nothing a repository says can run: no hooks, filters, monitors or protocols, a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parhelia_mcp.errors import LocalFault, Refused

NAME, EMAIL = "Parhelia", "parhelia@localhost"
_SAFE = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.safecrlf": "false",
    "core.compression": "1",
    "core.fsync": "none",
    "protocol.allow": "never",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "diff.external": "",
    "diff.ignoreSubmodules": "dirty",
    "diff.renames": "false",
    "advice.addEmbeddedRepo": "false",
    "commit.gpgSign": "false",
    "merge.conflictStyle": "merge",
    "safe.directory": "*",
}
_SAFE_ARGV = [part for key, value in _SAFE.items() for part in ("-c", f"{key}={value}")]


@dataclass(frozen=True, slots=True)
class Git:
    """One way to call git: in `directory`, with `variables` on top of a clean environment.

    `trusted` also reads the user's own configuration; without it only the repository's is read.
    """

    directory: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = False

    def ask(
        self, *argv: str, stdin: bytes | int = b"", output: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end and return whatever came, also a failure."""
        safe = _SAFE_ARGV[:-2] if self.trusted else _SAFE_ARGV  # the user's own judgement of owners stands outside
        try:
            return subprocess.run(
                ["git", "--no-pager", *safe, *argv],
                cwd=self.directory,
                env=_environment(self.trusted) | dict(self.variables),
                **({"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}),
                stdout=output,
                stderr=subprocess.PIPE,
                check=False,
            )
        except FileNotFoundError:
            if shutil.which("git"):
                raise
            raise LocalFault("git-missing", "git is not installed here.", "install git") from None

    def __call__(self, *argv: str, stdin: bytes | int = b"", output: int = subprocess.PIPE) -> bytes:
        """The output of a git command that has to succeed; raises LocalFault `git-failed`."""
        done = self.ask(*argv, stdin=stdin, output=output)
        if done.returncode:
            raise LocalFault("git-failed", f"git {argv[0]} failed in {self.directory}: {said(done)}", "")
        return done.stdout

    def id(self, *argv: str, stdin: bytes = b"") -> str:
        """The one object id that the command prints."""
        return self(*argv, stdin=stdin).decode().strip()


def _environment(trusted: bool) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "0",
        "GIT_AUTHOR_NAME": NAME,
        "GIT_AUTHOR_EMAIL": EMAIL,
        "GIT_COMMITTER_NAME": NAME,
        "GIT_COMMITTER_EMAIL": EMAIL,
    }
    if not trusted:
        clean |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return clean


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git complained about, in one bounded line."""
    text = done.stderr.decode(errors="replace").strip().splitlines()
    return "; ".join(text)[:500] or f"exit {done.returncode}"


@dataclass(frozen=True, slots=True)
class Place:
    """The user's repository as it lies on the disk."""

    top: Path
    git_dir: Path
    common: Path
    head: str | None  # None on an unborn branch
    head_tree: str | None
    branch: str | None  # None when HEAD is detached
    sha256: bool

    @property
    def objects(self) -> Path:
        return self.common / "objects"


def locate(source: Path) -> Place | None:
    """The repository that `source` is in, or None outside any; raises Refused for one that cannot be used."""
    done = Git(source, trusted=True).ask(
        "rev-parse",
        "--path-format=absolute",
        "--show-object-format",
        "--show-toplevel",
        "--git-dir",
        "--git-common-dir",
        "HEAD^{commit}",
        "HEAD^{tree}",
    )
    lines = done.stdout.split(b"\n")
    if len(lines) < 5:
        _refuse(source, said(done))
        return None
    if (done.returncode == 0 and len(lines) != 7) or not all(line.startswith(b"/") for line in lines[1:4]):
        raise Refused(
            "odd-path", f"The path of the repository at {source} has a line break in it.", "rename the directory"
        )
    top, git_dir, common = (Path(os.fsdecode(line)) for line in lines[1:4])
    pointer = (git_dir / "HEAD").read_bytes().strip()
    branch = pointer[16:].decode(errors="replace") if pointer.startswith(b"ref: refs/heads/") else None
    head, tree = (lines[4].decode(), lines[5].decode()) if done.returncode == 0 else (None, None)
    if head is None and (branch is None or Git(source, trusted=True).ask("rev-parse", "-q", "--verify", "HEAD").stdout):
        raise Refused("git-broken", f"HEAD of {top} points nowhere: {said(done)}", f"git -C {top} fsck")
    return Place(top, git_dir, common, head, tree, branch, lines[0] == b"sha256")


def _refuse(source: Path, text: str) -> None:
    if "not a git repository" in text and "(or any" in text and not (source / ".git").exists():
        return
    if "dubious ownership" in text:
        raise Refused(
            "git-untrusted",
            f"git does not trust the owner of {source}.",
            f"git config --global --add safe.directory {source}",
        )
    if "must be run in a work tree" in text:
        raise Refused("bare-repository", f"{source} has no working tree.", "give a checkout of it: git worktree add")
    raise Refused("git-broken", f"git cannot read {source}: {text}", f"git -C {source} status")


def settings(place: Place) -> dict[str, str]:
    """The user's effective git configuration, keys in lower case; the last value wins."""
    raw = Git(place.top, trusted=True)("config", "--list", "-z").decode(errors="replace")
    pairs = (entry.partition("\n") for entry in raw.split("\0") if entry)
    return {key: value for key, _, value in pairs}


def skeleton(
    folder: Path, *, head: str, config: Mapping[str, str], sha256: bool, alternates: Sequence[Path] = ()
) -> None:
    """Write an empty git directory, faster than `git init` and without its templates."""
    for part in ("objects/info", "objects/pack", "refs/heads", "info"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lines = ["[core]", "\trepositoryformatversion = 1", "\tbare = false", "\tlogallrefupdates = true"]
    lines += ["[extensions]", "\tobjectformat = sha256"] if sha256 else []
    for key, value in config.items():
        section, name = key.split(".")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines += [f"[{section}]", f'\t{name} = "{quoted}"']
    (folder / "config").write_text("\n".join(lines) + "\n")
    (folder / "HEAD").write_bytes(os.fsencode(head) + b"\n")
    if alternates:
        (folder / "objects/info/alternates").write_bytes(b"".join(_quoted(path) + b"\n" for path in alternates))


def _quoted(path: Path) -> bytes:
    raw = os.fsencode(path)
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if raw.startswith(b'"') else raw


def scratch(
    folder: Path, work_tree: Path, *, config: Mapping[str, str], sha256: bool, alternates: Sequence[Path]
) -> Git:
    """A private repository over somebody's working tree and objects; whatever it writes stays in `folder`."""
    skeleton(folder, head="ref: refs/heads/none", config=config, sha256=sha256, alternates=alternates)
    variables = {"GIT_DIR": str(folder), "GIT_WORK_TREE": str(work_tree), "GIT_INDEX_FILE": str(folder / "index")}
    return Git(work_tree, variables)


def write_bundle(git: Git, path: Path, *, refs: Mapping[str, str], without: Sequence[str], sha256: bool) -> None:
    """Write a git bundle of `refs` (name -> commit) that leaves out, and asks for, the commits `without`."""
    header = "# v3 git bundle\n@object-format=sha256\n" if sha256 else "# v2 git bundle\n"
    header += "".join(f"-{commit} \n" for commit in without)
    header += "".join(f"{commit} {name}\n" for name, commit in refs.items())
    wanted = (
        "".join(f"{commit}\n" for commit in dict.fromkeys(refs.values()))
        + "--not\n"
        + "".join(f"{c}\n" for c in without)
    )
    path.touch(mode=0o600)
    with path.open("wb") as bundle:
        bundle.write(header.encode() + b"\n")
        bundle.flush()
        git(
            "pack-objects",
            "--revs",
            "--stdout",
            "--thin",
            "--delta-base-offset",
            "-q",
            stdin=wanted.encode(),
            output=bundle.fileno(),
        )


def write_tree_difference(
    git: Git, path: Path, *, wanted: Sequence[str], without: Sequence[str], boundary: Sequence[str]
) -> None:
    """Write a thin pack of what `wanted` needs beyond `without`, history cut at `boundary`."""
    lines = [*(f"--shallow {commit}" for commit in boundary), *wanted, "--not", *without]
    path.touch(mode=0o600)
    with path.open("wb") as pack:
        stdin = ("\n".join(lines) + "\n").encode()
        git(
            "pack-objects",
            "--revs",
            "--stdout",
            "--thin",
            "--delta-base-offset",
            "-q",
            stdin=stdin,
            output=pack.fileno(),
        )
