"""Repositories of every shape a user may have, as the shell commands that make them, and what is compared about them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from parhelia_mcp import spec, workspace

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "User",
    "GIT_AUTHOR_EMAIL": "user@example.com",
    "GIT_COMMITTER_NAME": "User",
    "GIT_COMMITTER_EMAIL": "user@example.com",
    "GIT_ALLOW_PROTOCOL": "file",
}
HISTORY = """
git init -q -b main
printf '*.log\\n.env\\n' >.gitignore; mkdir -p src; echo one >src/a.txt; echo two >src/b.txt; echo three >c.txt; seq 1 50 >long.txt
git add -A; git commit -qm first
echo more >>c.txt; git commit -qam second
echo secret >.env; echo noise >build.log
"""
SHAPES = {
    "clean": HISTORY,
    "uncommitted": HISTORY + "echo x >>c.txt",
    "staged": HISTORY + "echo x >>c.txt; git add c.txt; echo y >>c.txt; echo new >new; git add new",
    "untracked": HISTORY + "mkdir -p deep/er; echo u >deep/er/file",
    "deleted": HISTORY + "rm src/a.txt; git rm -q src/b.txt",
    "removed from the index only": HISTORY + "git rm -q --cached c.txt",
    "renamed": HISTORY + "git mv long.txt src/longer.txt; mv c.txt d.txt",
    "mode": HISTORY + "chmod +x c.txt; chmod +x src/a.txt; git add src/a.txt",
    "symlink": HISTORY + "ln -s c.txt link; ln -s /nowhere dangling; rm src/a.txt; ln -s ../c.txt src/a.txt",
    "file became directory": HISTORY + "rm c.txt; mkdir c.txt; echo in >c.txt/in",
    "detached": HISTORY + "git checkout -q HEAD~1; echo x >>c.txt",
    "unborn": "git init -q -b trunk; echo a >a; echo c >c.txt",
    "unborn with an index": "git init -q -b trunk; echo a >a; git add a; echo c >c.txt; echo b >>a",
    "unborn and empty": "git init -q -b trunk",
    "odd branch": HISTORY + "git checkout -qb 'feature/ünder#1'; echo x >>c.txt",
    "linked worktree": "mkdir ../first; cd ../first;"
    + HISTORY
    + "git worktree add -q ../repo -b side; cd ../repo; echo x >>c.txt; echo s >s; git add s",
    "shallow": "mkdir ../first; cd ../first;"
    + HISTORY
    + "git clone -q --depth 1 file://$PWD ../repo; cd ../repo; echo x >>c.txt",
    "shared objects": "mkdir ../first; cd ../first;"
    + HISTORY
    + "git clone -q --shared . ../repo; cd ../repo; echo x >>c.txt",
    "submodule": "mkdir ../sub; cd ../sub;"
    + HISTORY
    + "cd ../repo;"
    + HISTORY
    + "git submodule -q add ../sub lib; git commit -qm sub; echo x >>c.txt",
    "submodule not populated": "mkdir ../sub; cd ../sub;"
    + HISTORY
    + "cd ../repo;"
    + HISTORY
    + "git submodule -q add ../sub lib; git commit -qm sub; git submodule -q deinit -f lib",
    "pointer files of lfs": HISTORY
    + "echo '*.bin filter=lfs diff=lfs merge=lfs -text' >.gitattributes; printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 1\\n' 1 >x.bin; git add -A; git commit -qm lfs; echo x >>c.txt",
    "odd names": HISTORY
    + "touch -- \"$(printf 'new\\nline')\" \"$(printf 'not\\377utf8')\" '-rf' 'tab\tname' '\"quoted\"' ' lead' '*star' ':(top)'; git add -A -- ' lead'",
    "case twins": HISTORY + "echo 1 >Readme; echo 2 >README; git add Readme",
    "line ends": HISTORY
    + "echo '*.txt text eol=crlf' >.gitattributes; git add -A; git commit -qm ends; rm -r c.txt long.txt .gitignore src; git checkout -q .; printf 'x\\r\\n' >>c.txt",
    "autocrlf": HISTORY
    + "git config core.autocrlf true; rm -r c.txt long.txt .gitignore src; git checkout -q .; printf 'x\\r\\n' >>c.txt",
    "filter": HISTORY
    + "echo '*.txt filter=evil' >.gitattributes; git config filter.evil.clean 'touch ../ran; cat'; git config filter.evil.process 'touch ../ran; cat'; echo x >>c.txt",
    "hooks": HISTORY
    + "for h in pre-commit post-commit post-index-change reference-transaction post-checkout; do printf '#!/bin/sh\\ntouch ../ran\\n' >.git/hooks/$h; chmod +x .git/hooks/$h; done; echo x >>c.txt",
    "file system monitor": HISTORY
    + "printf '#!/bin/sh\\ntouch '$PWD'/../ran\\n' >.git/mon; chmod +x .git/mon; git config core.fsmonitor $PWD/.git/mon; echo x >>c.txt",
    "rebase in progress": HISTORY
    + "git checkout -qb side HEAD~1; echo other >>c.txt; git commit -qam other; git rebase -q main || true",
    "merge in progress": HISTORY
    + "git checkout -qb side HEAD~1; echo other >>c.txt; git commit -qam other; git merge -q main || true",
    "stale index.lock": HISTORY + "echo x >>c.txt; touch .git/index.lock",
    "stash": HISTORY + "echo z >>long.txt; git stash -q; echo x >>c.txt",
    "split index": HISTORY + "git update-index --split-index; echo x >>c.txt; git add c.txt",
    "intent to add": HISTORY + "echo i >i; git add -N i",
    "nested repository": HISTORY
    + "mkdir inner; (cd inner; git init -q; echo i >i; git add i; git commit -qm i; echo j >j)",
    "nested repository without a commit": HISTORY + "mkdir inner; (cd inner; git init -q; echo i >i); echo x >>c.txt",
    "sha256": "git init -q -b main --object-format=sha256; echo a >c.txt; git add -A; git commit -qm a; echo x >>c.txt; echo u >u",
    "excluded for this clone": HISTORY + "echo mine >.git/info/exclude; echo m >mine; echo x >>c.txt",
    "packed refs": HISTORY + "git gc -q; echo x >>c.txt",
    "replaced commit": HISTORY + "git replace HEAD HEAD~1; echo x >>c.txt",
    "signed always": HISTORY + "git config commit.gpgsign true; git config gpg.program false; echo x >>c.txt",
    "sparse": HISTORY + "git sparse-checkout set src; echo x >>src/a.txt",
    "a name that git reserves": HISTORY + "mkdir -p parhelia; echo p >parhelia/file; git branch task-1",
}


def shell(script: str, where: Path) -> str:
    """What `script` prints, run in `where` as the user would."""
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=where,
        env={**ENVIRONMENT, "HOME": str(where.parent)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="surrogateescape")


def make(name: str, where: Path) -> Path:
    repository = where / "repo"
    repository.mkdir(parents=True)
    shell(SHAPES[name], repository)
    return repository


def fingerprint(repository: Path, *, objects: bool) -> dict[str, str]:
    """A hash of each file around `repository`: tree, index, HEAD, refs, stash, logs; what Parhelia may add is left out."""
    found = {}
    for folder, folders, names in os.walk(repository.parent):
        if not objects and "objects" in folders:
            folders.remove("objects")
        folders[:] = [name for name in folders if not (name == "parhelia" and "/.git/" in f"{folder}/")]
        for name in [*names, *(folders if objects else [])]:
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file():
                found[str(path)] = str(path.readlink()) if path.is_symlink() else "dir"
            else:
                found[str(path)] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


def contents(top: Path) -> dict[str, str]:
    """Kind, x bit and content of every file that is not ignored; no `.git`."""
    listed = shell("git ls-files -z -co --exclude-standard", top).split("\0") if (top / ".git").exists() else []
    nested = {name for name in listed if name and (top / name).is_dir() and not (top / name).is_symlink()}
    names = {name for name in listed if name} - nested
    for name in nested:
        names |= {
            str(p.relative_to(top))
            for p in (top / name).rglob("*")
            if p.is_file() and ".git" not in p.parts[len(top.parts) :]
        }
    names = {name for name in names if not name.endswith((".log", ".env"))}
    return {
        name: f"link {path.readlink()}"
        if path.is_symlink()
        else f"{path.stat().st_mode & 0o100:o} {path.read_bytes()!r}"
        for name in sorted(names)
        if (path := top / name).is_symlink() or path.is_file()
    }


def send(source: Path, away: Path) -> tuple[spec.Workspace, Path]:
    """Pack `source` and unpack it in another directory, through copies as a provider delivers them."""
    out, inputs = away / "out", away / "inputs"
    out.mkdir(parents=True)
    inputs.mkdir()
    packed = workspace.pack(source, out, cache=away.parent / f"{away.name}.cache")
    for name, path in packed.sources:
        (inputs / name).write_bytes(path.read_bytes())
    workspace.unpack(packed.workspace, inputs, away / "workspace")
    return packed.workspace, away / "workspace"
