"""Outside: write what a session needs to have the user's exact workspace."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parhelia_mcp import files, locks, spec
from parhelia_mcp.errors import Refused, Usage
from parhelia_mcp.workspace import archive
from parhelia_mcp.workspace.git import EMAIL, NAME, Git, Place, locate, scratch, settings, write_tree_difference
from parhelia_mcp.workspace.snapshot import snapshot

WHOLE_HISTORY = 64 << 20  # bytes of packs up to which all history of HEAD travels
_STALE_S = 7 * 86400  # how long a replaced pack may still be on its way into a session
_TRAVELS = ("core.autocrlf", "core.eol", "core.filemode", "core.symlinks", "core.ignorecase", "core.precomposeunicode")


@dataclass(frozen=True, slots=True)
class Packed:
    """A workspace ready to be delivered."""

    workspace: spec.Workspace
    sources: tuple[tuple[str, Path], ...]  # input name, local file with its bytes; read it before the next `pack`
    repository: Path | None  # top of the working tree that results land in; None without git
    files: int  # changed, staged or untracked ones with git, all of them without
    bytes: int  # new on the disk


def pack(source: Path, out: Path, *, cache: Path) -> Packed:
    """Write the workspace at `source` into `out`, and what other sessions can use again into `cache`.

    With git the whole repository travels, wherever in it `source` lies. Nothing of the user's changes.
    Raises Usage or Refused for what cannot travel.
    """
    checked(source)
    place = locate(source)
    files.private_dir(out)
    if place is None:
        return _pack_files(source, out)
    too_wide(place.top)
    config = settings(place)
    with tempfile.TemporaryDirectory(prefix=".pack.", dir=out) as folder:
        git = borrow(place, Path(folder), config)
        staged = _staged(git, place)
        tree = snapshot(git, place.top, sha256=place.sha256, config=travelling(config))
        base = _commit(git, place, tree)
        inputs = _write(git, place, out, cache, config, base=base, staged=staged)
        changed = _changed(git, place, tree, staged)
    about = {
        "branch": place.branch,
        "head": place.head,
        "base": base,
        "staged": staged,
        "sha256": place.sha256,
        "config": _session_config(config),
        "exclude": _excludes(place, config),
        "shallow": _boundary(place, config),
    }
    files.replace_json(out / "workspace.json", about)
    sources = (("workspace.json", out / "workspace.json"), *inputs)
    return Packed(
        spec.Workspace("git", base, place.head, place.branch, tuple(name for name, _ in sources)),
        sources,
        place.top,
        changed,
        sum(path.stat().st_size for _, path in sources if path.parent == out),
    )


def checked(source: Path) -> None:
    """Raise Usage or Refused where `source` is no directory that can be a workspace."""
    if not source.exists():
        raise Usage("workspace-missing", f"{source} does not exist.", "give a directory: --workspace DIR")
    if not source.is_dir():
        raise Usage("workspace-not-a-directory", f"{source} is a file.", f"--workspace {source.parent}")
    if not os.access(source, os.R_OK | os.X_OK):
        raise Refused("workspace-unreadable", f"{source} cannot be read.", f"chmod u+rx {source}")
    too_wide(source)


def too_wide(top: Path) -> None:
    """Raise Refused for the root directory and the home directory, where everything would travel."""
    real = top.resolve()
    if real in (Path("/"), Path.home().resolve()):
        raise Refused(
            "workspace-too-wide",
            f"{real} holds everything you have; it does not travel.",
            "go into the project, or git init there",
        )


def borrow(place: Place, folder: Path, config: dict[str, str]) -> Git:
    """A private repository over the user's files, with a copy of the index, that writes into `folder` only."""
    keep = {**travelling(config), **{key: config[key] for key in ("core.excludesfile",) if key in config}}
    git = scratch(folder, place.top, config=keep, sha256=place.sha256, alternates=[place.objects])
    for source, name in ((place.git_dir / "index", "index"), (place.common / "shallow", "shallow")):
        if source.exists():
            shutil.copyfile(source, folder / name)
    for shared in place.git_dir.glob("sharedindex.*"):
        shutil.copyfile(shared, folder / shared.name)
    for name in ("exclude", "attributes"):
        if (place.common / "info" / name).exists():
            shutil.copyfile(place.common / "info" / name, folder / "info" / name)
    return git


def travelling(config: dict[str, str]) -> dict[str, str]:
    """The settings that decide which bytes and modes git writes into a working tree."""
    return {key: config[key] for key in _TRAVELS if key in config}


def _session_config(config: dict[str, str]) -> dict[str, str]:
    identity = {"user.name": config.get("user.name", NAME), "user.email": config.get("user.email", EMAIL)}
    return {**travelling(config), **identity}


def _staged(git: Git, place: Place) -> str | None:
    """The tree of the user's index; None where it is like HEAD, or has conflicts and so has no tree."""
    done = git.ask("write-tree")
    tree = done.stdout.decode().strip()
    return tree if done.returncode == 0 and tree != place.head_tree else None


def _commit(git: Git, place: Place, tree: str) -> str:
    """The commit of the whole workspace on the user's HEAD, or HEAD itself where that is the same."""
    if tree == place.head_tree:
        return place.head or tree
    parent = ["-p", place.head] if place.head else []
    return git.id("commit-tree", tree, *parent, "-m", "Your uncommitted work")


def _changed(git: Git, place: Place, tree: str, staged: str | None) -> int:
    if tree == place.head_tree and staged is None:
        return 0
    against = place.head_tree or git.id("mktree")
    return git("diff-tree", "-r", "-z", "--name-only", against, tree).count(b"\0")


def _excludes(place: Place, config: dict[str, str]) -> str:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git/ignore"
    own = Path(config["core.excludesfile"]).expanduser() if config.get("core.excludesfile") else home
    texts = [path.read_bytes() for path in (own, place.common / "info/exclude") if path.is_file()]
    return b"\n".join(texts).decode("latin-1")  # any bytes, and JSON can hold it


def _boundary(place: Place, config: dict[str, str]) -> list[str]:
    """The commits at which history ends in the session; none where all of it travels."""
    if place.head and not _whole(place, config):
        return [place.head]
    shallow = place.common / "shallow"
    return shallow.read_text().split() if shallow.exists() else []


def _whole(place: Place, config: dict[str, str]) -> bool:
    return "extensions.partialclone" not in config and _stored(place.objects) <= WHOLE_HISTORY


def _stored(objects: Path) -> int:
    """About how many bytes of objects there are: packs exactly, loose ones by the share git itself samples."""
    total = sum(entry.stat().st_size for entry in (objects / "pack").glob("*.pack"))
    total += 256 * sum(entry.stat().st_size for entry in (objects / "17").glob("*"))
    alternates = objects / "info/alternates"
    if alternates.exists():
        lines = alternates.read_bytes().splitlines()
        total += sum(_stored(objects / os.fsdecode(line)) for line in lines if not line.startswith((b"#", b'"')))
    return total


def _write(
    git: Git, place: Place, out: Path, cache: Path, config: dict[str, str], *, base: str, staged: str | None
) -> list[tuple[str, Path]]:
    """The packs that hold the base, the index and history: one of HEAD that is kept, one of what is new."""
    wanted = [commit for commit in (base, staged) if commit]
    if place.head is None:
        return [_difference(git, out, wanted, [], [])]
    kept = _kept(git, place, cache, config, fresh=False)
    inputs = _inputs(kept)
    if kept["head"] != place.head or wanted != [place.head]:
        boundary = dict.fromkeys([*_boundary(place, config), *kept["shallow"]])
        new = _difference(git, out, wanted, [kept["head"]], list(boundary))
        if kept["head"] != place.head and new[1].stat().st_size > max(8 << 20, kept["bytes"] // 2):
            kept = _kept(git, place, cache, config, fresh=True)
            new = _difference(git, out, wanted, [place.head], _boundary(place, config))
            inputs = _inputs(kept)
        inputs.append(new)
    return inputs


def _inputs(kept: dict[str, Any]) -> list[tuple[str, Path]]:
    return [(f"{kept['name']}.{kind}", Path(kept["folder"]) / f"{kept['name']}.{kind}") for kind in ("pack", "idx")]


def _difference(git: Git, out: Path, wanted: list[str], without: list[str], boundary: list[str]) -> tuple[str, Path]:
    path = out / "workspace.pack"
    write_tree_difference(git, path, wanted=wanted, without=without, boundary=boundary)
    return path.name, path


def _kept(git: Git, place: Place, cache: Path, config: dict[str, str], *, fresh: bool) -> dict[str, Any]:
    """The pack of an earlier HEAD of this repository, or of this one where there is none or a `fresh` one is asked for."""
    key = hashlib.sha256(os.fsencode(place.common.resolve())).hexdigest()[:16]
    home = files.private_dir(cache / key)
    pack_dir = files.private_dir(home / "pack")
    with locks.exclusive(home / "lock", wait_s=120, what=f"the packs of {place.top}"):
        kept = files.read_json(home / "kept.json")
        if kept and not fresh and _usable(git, kept, _whole(place, config)):
            return kept
        boundary = _boundary(place, config)
        stdin = "".join(f"--shallow {commit}\n" for commit in boundary) + f"{place.head}\n"
        name = "pack-" + git.id(
            "pack-objects", "--revs", "-q", "--delta-base-offset", str(pack_dir / "pack"), stdin=stdin.encode()
        )
        size = (pack_dir / f"{name}.pack").stat().st_size
        kept = {
            "head": place.head,
            "shallow": boundary,
            "whole": _whole(place, config),
            "name": name,
            "bytes": size,
            "folder": str(pack_dir),
        }
        files.replace_json(home / "kept.json", kept)
        _forget(pack_dir, name)
    return kept


def _usable(git: Git, kept: dict[str, Any], whole: bool) -> bool:
    there = all(path.exists() for _, path in _inputs(kept))
    return there and kept["whole"] == whole and git.ask("cat-file", "-e", kept["head"]).returncode == 0


def _forget(pack_dir: Path, name: str) -> None:
    newest = (pack_dir / f"{name}.pack").stat().st_mtime
    for path in pack_dir.iterdir():
        if path.stem != name and path.stat().st_mtime < newest - _STALE_S:
            path.unlink()


def _pack_files(source: Path, out: Path) -> Packed:
    count, digest = archive.write(source, out / "workspace.tar")
    sources = (("workspace.tar", out / "workspace.tar"),)
    size = sources[0][1].stat().st_size
    return Packed(spec.Workspace("files", digest, inputs=("workspace.tar",)), sources, None, count, size)
