"""Inside: make a directory the exact workspace that was packed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from parhelia_mcp import files, spec
from parhelia_mcp.errors import Corrupted
from parhelia_mcp.workspace import archive
from parhelia_mcp.workspace.git import Git, skeleton


def unpack(workspace: spec.Workspace, inputs: Path, target: Path) -> None:
    """Make `target`, which is empty or absent, the workspace whose input files lie in `inputs`.

    Raises Corrupted `bad-workspace` for inputs that are missing or do not fit together.
    """
    target.mkdir(parents=True, exist_ok=True)
    missing = [name for name in workspace.inputs if not (inputs / name).is_file()]
    if missing:
        raise Corrupted("bad-workspace", f"{', '.join(missing)} did not arrive.", "")
    if workspace.kind == "files":
        archive.extract(inputs / workspace.inputs[0], target, expected=workspace.base_commit)
    elif workspace.kind == "git":
        _check_out(files.read_json(inputs / "workspace.json"), workspace, inputs, target)


def _check_out(about: dict[str, Any], workspace: spec.Workspace, inputs: Path, target: Path) -> None:
    git_dir = target / ".git"
    head = f"ref: refs/heads/{about['branch']}" if about["branch"] else about["head"]
    skeleton(git_dir, head=head, config=about["config"], sha256=about["sha256"])
    (git_dir / "info/exclude").write_bytes(about["exclude"].encode("latin-1"))
    if about["shallow"]:
        (git_dir / "shallow").write_text("".join(f"{commit}\n" for commit in about["shallow"]))
    git = Git(target, {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(target)})
    for name in workspace.inputs:
        if name.startswith("pack-"):
            copy = git_dir / "objects/pack" / name
            shutil.copyfile(inputs / name, copy)
            copy.with_suffix(".keep").touch()  # so that no `git gc` of the agent's drops the base
    if "workspace.pack" in workspace.inputs:
        with (inputs / "workspace.pack").open("rb") as pack:
            git("index-pack", "--fix-thin", "--keep", "--stdin", stdin=pack.fileno())
    if about["head"] and about["branch"]:
        git("update-ref", f"refs/heads/{about['branch']}", about["head"])
    _fill(git, about)


def _fill(git: Git, about: dict[str, Any]) -> None:
    """Write the files, then make the index say what was staged and leave the rest as changes."""
    git("read-tree", "-m", "-u", f"{about['base']}^{{tree}}")
    indexed = about["staged"] or (f"{about['head']}^{{tree}}" if about["head"] else None)
    if about["base"] == about["head"] and not about["staged"]:
        return
    git("read-tree", *(["-m", indexed] if indexed else ["--empty"]))
    git.ask("update-index", "-q", "--refresh")
