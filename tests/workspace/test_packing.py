"""What is sent, how much, and what is refused before anything is spent."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parhelia_mcp import spec, workspace
from parhelia_mcp.errors import Corrupted, Problem, Refused
from tests.workspace.shapes import contents, make, send, shell

packing = importlib.import_module("parhelia_mcp.workspace.pack")  # the package has the function under that name


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("script", "where", "code"),
    [
        ("true", "absent", "workspace-missing"),
        ("touch file", "file", "workspace-not-a-directory"),
        ("true", "/", "workspace-too-wide"),
        ("true", "home", "workspace-too-wide"),
        ("git init -q home; mkdir home/inner", "home/inner", "workspace-too-wide"),
        ("git init -q --bare bare", "bare", "bare-repository"),
        ("git init -q x", "x/.git", "bare-repository"),
        ("git init -q x; echo garbage >x/.git/HEAD", "x", "git-broken"),
        ("git init -q x; echo '[core' >x/.git/config", "x", "git-broken"),
        (
            "git init -q x; touch x/a; git -C x add a; git -C x commit -qm a; rm -rf x/.git/objects/??",
            "x",
            "git-broken",
        ),
        ("mkdir x; echo 'gitdir: /nowhere' >x/.git", "x", "git-broken"),
        ("git init -q \"$(printf 'a\\nb')\"; cd a*; touch f; git add f; git commit -qm f", "a\nb", "odd-path"),
        ("git init -q \"$(printf 'a\\nc')\"", "a\nc", "odd-path"),
    ],
)
def test_what_cannot_travel_is_refused_by_name(script: str, where: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    shell(script.replace("home", "./home"), tmp_path)
    with pytest.raises(Problem) as refused:
        workspace.pack(tmp_path / where, tmp_path / "out", cache=tmp_path / "cache")
    assert refused.value.code == code
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_session_sends_only_what_is_new(tmp_path: Path) -> None:
    user = make("clean", tmp_path / "user")
    (user / "big").write_bytes(os.urandom(300_000))
    shell("git add big; git commit -qm big", user)
    sizes = []
    for number in range(3):
        out = tmp_path / f"out{number}"
        out.mkdir()
        packed = workspace.pack(user, out, cache=tmp_path / "cache")
        sizes.append(packed.bytes)
        workspace.unpack(packed.workspace, deliver(packed, tmp_path / f"in{number}"), tmp_path / f"work{number}")
        assert contents(tmp_path / f"work{number}") == contents(user)
        assert shell("git log --format=%H", tmp_path / f"work{number}") == shell("git log --format=%H", user)
        shell(f"echo {number} >>c.txt; git commit -qam more{number}; echo {number} >>long.txt", user)
    assert all(size < 5000 for size in sizes)
    assert len(list((tmp_path / "cache").glob("*/pack/*.pack"))) == 1


def deliver(packed: workspace.Packed, inputs: Path) -> Path:
    inputs.mkdir()
    for name, path in packed.sources:
        shutil.copyfile(path, inputs / name)
    return inputs


def test_a_giant_history_stays_home_and_the_result_lands_on_the_real_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "WHOLE_HISTORY", 10)
    user = make("uncommitted", tmp_path / "user")
    shell("git gc -q; git commit -qam third; echo x >>long.txt", user)
    sent, target = send(user, tmp_path / "away")
    assert contents(target) == contents(user)
    assert shell("git status --porcelain; git log --format=%s", target) == " M long.txt\nthird\n"
    shell("git fsck --strict; git commit -qam agent; echo left >left", target)
    workspace.collect(target, sent, tmp_path / "result", session="task-aaaaaaaa.1", message="left")
    landed = workspace.land(user, sent, tmp_path / "result", task="task-aaaaaaaa", number=1)
    assert shell(f"git log --format=%s {landed.ref}", user).split() == ["left", "agent", "third", "second", "first"]


def test_a_giant_history_sends_only_what_is_new_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "WHOLE_HISTORY", 10)
    user = make("clean", tmp_path / "user")
    (user / "big").write_bytes(os.urandom(300_000))
    shell("git add big; git commit -qm big; git gc -q", user)
    for number in range(2):
        out = tmp_path / f"out{number}"
        out.mkdir()
        packed = workspace.pack(user, out, cache=tmp_path / "cache")
        assert packed.bytes < 5000
        workspace.unpack(packed.workspace, deliver(packed, tmp_path / f"in{number}"), tmp_path / f"work{number}")
        assert contents(tmp_path / f"work{number}") == contents(user)
        shell("git fsck --strict", tmp_path / f"work{number}")
        shell(
            f"echo {number} >>c.txt; git commit -qam more; git checkout -qb other{number} HEAD~2; echo y >>long.txt",
            user,
        )


def test_an_input_that_did_not_arrive_is_named(tmp_path: Path) -> None:
    sent, _ = send(make("uncommitted", tmp_path / "user"), tmp_path / "away")
    (tmp_path / "away/inputs/workspace.pack").unlink()
    with pytest.raises(Corrupted, match=r"workspace\.pack"):
        workspace.unpack(sent, tmp_path / "away/inputs", tmp_path / "again")


def plain(where: Path) -> Path:
    """A directory without git that holds what git would lose."""
    top = where / "plain"
    top.mkdir(parents=True)
    shell(
        "mkdir empty sub; echo a >a; echo b >sub/b; ln -s a link; ln -s /nowhere gone; chmod 640 a; chmod 750 sub; ln a hard; mkfifo pipe; touch -- \"$(printf 'odd\\377\\n')\" -rf; git init -q inner; touch inner/f",
        top,
    )
    return top


def look(top: Path) -> dict[str, str]:
    found = {}
    for folder, folders, names in os.walk(top):
        for path in (Path(folder) / name for name in [*folders, *names]):
            status = path.lstat()
            if not stat.S_ISFIFO(status.st_mode):
                content = str(path.readlink()) if path.is_symlink() else "" if path.is_dir() else path.read_text()
                found[str(path.relative_to(top))] = f"{status.st_mode:o} {content}"
    return found


def test_a_directory_without_git_goes_in_exactly_and_its_changes_come_back(tmp_path: Path) -> None:
    user = plain(tmp_path / "user")
    before = look(user)
    sent, target = send(user, tmp_path / "away")
    assert look(target) == before == look(user)
    bundle = tmp_path / "result"
    assert workspace.collect(target, sent, bundle, session="task-aaaaaaaa.1", message="m") is None
    shell(
        "echo agent >>a; rm -r sub; mkdir -p new/deep; echo n >new/deep/n; chmod 600 hard; ln -sf b link; touch .envrc; rmdir empty; rm gone; mkdir gone; echo in >gone/in; rm -r inner; echo now >inner",
        target,
    )
    assert workspace.collect(target, sent, bundle, session="task-aaaaaaaa.1", message="m")
    assert bundle.stat().st_size < 40_000
    landed = workspace.land(user, sent, bundle, task="task-aaaaaaaa", number=1)
    assert (landed.ref, landed.branch) == (None, None)
    assert ".envrc" in landed.risky_paths
    assert look(user) == before
    workspace.apply(user, sent, bundle)
    assert look(user) == look(target)


@pytest.mark.parametrize(
    "mine",
    [
        "echo mine >a",
        "rm a",
        "rm a; ln -s /etc/passwd a",
        "mkdir new; touch new/n",
        "rm -r sub; ln -s /tmp sub",
        "rm -r sub; touch sub",
    ],
)
def test_a_directory_without_git_refuses_what_the_user_changed_too(tmp_path: Path, mine: str) -> None:
    user = plain(tmp_path / "user")
    sent, target = send(user, tmp_path / "away")
    shell("echo agent >a; echo agent >new; echo agent >sub/b", target)
    workspace.collect(target, sent, tmp_path / "result", session="task-aaaaaaaa.1", message="m")
    shell(mine, user)
    before = look(user)
    with pytest.raises(Refused) as conflict:
        workspace.apply(user, sent, tmp_path / "result")
    assert conflict.value.code == "conflicts"
    assert look(user) == before


def result(where: Path, now: dict[str, object], members: dict[str, bytes], deleted: tuple[str, ...] = ()) -> Path:
    """A result archive of a session that lies."""
    path = where / "lie.tar"
    with tarfile.open(path, "w") as tar:
        about = json.dumps({"base": dict.fromkeys(deleted, "file 644 0"), "now": now, "deleted": deleted}).encode()
        for name, content in {"result.json": about, **members}.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


EVIL = f"file 644 {hashlib.sha256(b'evil').hexdigest()}"


@pytest.mark.parametrize(
    ("now", "deleted"),
    [
        ({"../out": EVIL}, ()),
        ({"/out": EVIL}, ()),
        ({"a/../../out": EVIL}, ()),
        ({}, ("../../out",)),
        ({"b": 7}, ()),
        ({"b": EVIL.replace("644", "4755")}, ()),
        ({"b": "file 644 1234"}, ()),
        ({"absent": EVIL}, ()),
        ({"fresh": f"link {os.sep}tmp", "fresh/b": EVIL}, ()),
        ({"link": f"link {os.sep}etc", "link/b": EVIL}, ()),
    ],
)
def test_a_lying_result_of_a_directory_without_git_touches_nothing(now: dict, deleted: tuple, tmp_path: Path) -> None:
    user = plain(tmp_path / "user")
    before = look(tmp_path / "user")
    members = {f"files/{name}": b"evil" for name in now if name != "absent"}
    with pytest.raises(Refused):
        workspace.apply(user, spec.Workspace("files", "0" * 64), result(tmp_path, now, members, deleted))
    assert look(tmp_path / "user") == before


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for number, data in enumerate([b"", b"junk" * 1000, b"\0" * 10240]):
        (tmp_path / f"{number}").write_bytes(data)
        with pytest.raises(Refused):
            workspace.land(
                plain(tmp_path / f"user{number}"),
                spec.Workspace("files", "0" * 64),
                tmp_path / f"{number}",
                task="task-aaaaaaaa",
                number=1,
            )


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and not name.lower().startswith((".git", "git~")) and len(name.encode()) < 200
)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.tuples(st.binary(max_size=60), st.booleans()), max_size=6
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=TREES, second=TREES, git=st.booleans())
def test_any_files_survive_the_round_trip(
    first: dict, second: dict, git: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = tmp_path_factory.mktemp("round")
    user = where / "user"
    user.mkdir()
    fill(user, first)
    if git:
        shell(
            "git init -q; git config core.quotePath false; git add -A || true; git commit -qm first --allow-empty", user
        )
    fill(user, second)
    sent, target = send(user, where / "away")
    assert files_of(target) == files_of(user)
    fill(target, {f"{name}.new": entry for name, entry in first.items()})
    (target / "always").write_text("x")
    workspace.collect(target, sent, where / "result", session="task-aaaaaaaa.1", message="m")
    landed = workspace.land(user, sent, where / "result", task="task-aaaaaaaa", number=1)
    workspace.apply(user, sent, landed.ref or where / "result")
    assert files_of(user) == files_of(target)


def fill(top: Path, tree: dict[str, tuple[bytes, bool]]) -> None:
    for name, (content, executable) in tree.items():
        path = top / name
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if executable else 0o644)


def files_of(top: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in top.rglob("*") if path.is_file() and ".git" not in path.relative_to(top).parts)
    return {str(path.relative_to(top)): (path.stat().st_mode, path.read_bytes()) for path in paths}
