"""Killed anywhere, refused by the disk, or two at once: every earlier checkpoint stays whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parhelia_mcp.checkpoint.restore import restore
from parhelia_mcp.checkpoint.retention import gc
from parhelia_mcp.checkpoint.store import Store, list_all
from parhelia_mcp.checkpoint.verify import verify
from parhelia_mcp.errors import Busy
from tests.checkpoint.trees import describe, flat, take

CREATE = [
    "checkpoint.pack-open",
    "checkpoint.pack",
    "checkpoint.read@40",
    "checkpoint.scan",
    "checkpoint.pack-sync",
    "checkpoint.pack-rename",
    "checkpoint.manifest",
    "checkpoint.published",
    "checkpoint.cache",
]
RESTORE = ["restore.stage", "restore.file", "restore.file@60", "restore.swap", "restore.rename", "restore.finish"]


def victim(store: Store, workspace: Path, action: str, failpoint: str = "", *wrapper: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PARHELIA_FAILPOINT": failpoint, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*wrapper, sys.executable, "-m", "tests.checkpoint.victim", str(store.path), str(workspace), action]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*args: object) -> tuple[int, str]:
    process = victim(*args)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


def drafts(store: Store) -> list[str]:
    return [path.name for path in store.path.rglob(".*")]


def still_good(store: Store, workspace: Path, before: set[str], most: int) -> None:
    """Before or before+1, all of it verifies, the next checkpoint works, and nothing is left behind."""
    known = list_all(store)
    assert before <= {one.hash for one in known}
    assert len(known) <= len(before) + most
    for one in known:
        assert verify(store, one) == []
    made = take(store, workspace)
    assert verify(store, made) == []
    assert drafts(store) == []
    gc(store)
    assert drafts(store) == []
    listed = {pack.name for one in list_all(store) for pack in one.packs}
    assert {path.name for path in store.packs.iterdir()} == listed


@pytest.mark.parametrize("point", CREATE)
def test_a_create_killed_at_any_step_harms_nothing(store: Store, workspace: Path, point: str) -> None:
    before = {take(store, workspace).hash}
    flat(workspace / "more", 60, seed=2)
    code, _ = run(store, workspace, "create", f"{point}:kill9")
    assert code == -signal.SIGKILL
    still_good(store, workspace, before, 1)


@pytest.mark.parametrize("point", CREATE[:-2])
def test_a_full_disk_ends_a_create_clearly(store: Store, workspace: Path, point: str) -> None:
    before = {take(store, workspace).hash}
    flat(workspace / "more", 60, seed=2)
    code, said = run(store, workspace, "create", f"{point}:enospc")
    if point.startswith("checkpoint.read"):
        assert code == 0  # a file that cannot be read is skipped
    else:
        assert (code, said.split()[0]) == (7, "disk-full")
        assert drafts(store) == []
    still_good(store, workspace, before, 1)


def test_a_store_on_a_full_file_system_says_so(tmp_path: Path, workspace: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(small)], check=False).returncode == 0
    )
    if not mounted:  # without root a limit on the size of files stands in for the full disk
        script = f"ulimit -f 64; exec {sys.executable} -m tests.checkpoint.victim {small / 's'} {workspace} create"
        done = subprocess.run(["bash", "-c", f"trap '' XFSZ; {script}"], capture_output=True, check=False)
        assert done.returncode == 7
        return
    try:
        store = Store(small / "store")
        first = take(store, workspace / "d1")
        (workspace / "random").write_bytes(random.Random(3).randbytes(500_000))
        code, said = run(store, workspace, "create")
        assert (code, said.split()[0]) == (7, "disk-full")
        assert [one.hash for one in list_all(store)] == [first.hash]
        assert verify(store, first) == [] and drafts(store) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_data_is_on_the_disk_before_its_name_and_the_manifest_comes_last(
    tmp_path: Path, store: Store, workspace: Path
) -> None:
    log = tmp_path / "calls"
    code, _ = run(store, workspace, "create", "", "strace", "-f", "-qq", "-o", str(log), "-e", "trace=fsync,rename")
    calls = [line.split()[1].partition("(")[0] for line in log.read_text().splitlines() if "(" in line]
    assert code == 0
    assert calls[:6] == ["fsync", "rename", "fsync", "fsync", "rename", "fsync"]


def test_two_restores_into_one_place_do_not_mix(tmp_path: Path, store: Store, workspace: Path) -> None:
    taken = take(store, workspace)
    first = victim(store, tmp_path / "target", "restore", "restore.swap:sleep=2")
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".target.restoring/new/large")) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(Busy):
        restore(store, taken, tmp_path / "target")
    assert first.communicate(timeout=30) and first.returncode == 0
    assert describe(tmp_path / "target") == describe(workspace)


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_an_io_error_is_not_listed_as_done(store: Store, workspace: Path, call: str) -> None:
    before = {take(store, workspace).hash}
    (workspace / "new").write_text("x")
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when=1"]
    code, said = run(store, workspace, "create", "", *strace)
    assert (code, said.split()[0]) == (7, "disk-fault")
    assert {one.hash for one in list_all(store)} == before
    still_good(store, workspace, before, 0)


@pytest.mark.parametrize("action", ["delete", "gc", "retain"])
@pytest.mark.parametrize("point", ["checkpoint.delete", "checkpoint.gc"])
def test_a_removal_killed_at_any_step_harms_nothing(store: Store, workspace: Path, action: str, point: str) -> None:
    first = take(store, workspace, trigger="periodic")
    shutil.rmtree(workspace / "d1")
    flat(workspace / "more", 200, seed=3)
    middle = take(store, workspace, trigger="periodic")
    last = take(store, workspace)
    (store.packs / ("0" * 64 + ".pack")).write_bytes(b"nobody lists it")
    code, _ = run(store, workspace, action, f"{point}:kill9")
    assert code in (0, -signal.SIGKILL)
    known = {one.hash for one in list_all(store)}
    assert known >= {middle.hash, last.hash}
    assert all(verify(store, one) == [] for one in list_all(store))
    still_good(store, workspace, known - {first.hash}, 1)


@pytest.mark.parametrize("point", RESTORE)
def test_a_restore_killed_at_any_step_leaves_old_or_new(
    tmp_path: Path, store: Store, workspace: Path, point: str
) -> None:
    taken = take(store, workspace)
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("unsaved")
    code, _ = run(store, target, "restore", f"{point}:kill9")
    assert code == -signal.SIGKILL
    kept = target if (target / "mine").exists() else tmp_path / "target.1"
    assert (kept / "mine").read_text() == "unsaved"
    restore(store, taken, target, force=True)
    assert describe(target) == describe(workspace)
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert any((place / "mine").exists() for place in tmp_path.glob("target.*"))


def test_a_restore_without_room_leaves_the_target_alone(tmp_path: Path, store: Store, workspace: Path) -> None:
    take(store, workspace)
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("unsaved")
    for point in RESTORE[:-1]:
        code, said = run(store, target, "restore", f"{point}:enospc")
        assert (code, said.split()[0]) == (7, "disk-full"), point
        assert [path.name for path in target.iterdir()] == ["mine"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "target", "workspace"]


def test_the_second_of_two_creators_waits_or_is_told(store: Store, workspace: Path) -> None:
    first = victim(store, workspace, "create", "checkpoint.scan:sleep=2")
    deadline = time.monotonic() + 20
    while not list(store.packs.glob(".draft*")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
        if (store.path / "lock").exists():
            break
    code, said = run(store, workspace, "create-now")
    assert (code, said.split()[0]) == (8, "busy")
    assert run(store, workspace, "create")[0] == 0
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert len(list_all(store)) == 2
    assert all(verify(store, one) == [] for one in list_all(store))


def storm(tmp_path: Path, seed: int) -> None:
    """Kill creates, deletes, retentions and gcs at random times and see that nothing older suffers."""
    dice = random.Random(seed)
    store, workspace = Store(tmp_path / "store"), tmp_path / "workspace"
    flat(workspace, 60, seed=seed)
    known = {take(store, workspace).hash}
    for turn in range(2):
        flat(workspace / f"t{turn}", 40, seed=seed + turn)
        process = victim(store, workspace, dice.choice(["create", "create", "gc", "retain"]))
        time.sleep(dice.uniform(0.02, 0.25))  # the point of the test: any moment will do
        process.kill()
        process.communicate(timeout=30)
        now = {one.hash for one in list_all(store)}
        assert known <= now, f"seed {seed}"
        assert len(now) <= len(known) + 1, f"seed {seed}"
        for one in list_all(store):
            assert verify(store, one) == [], f"seed {seed}"
        known = now
    still_good(store, workspace, known, 0)


@pytest.mark.parametrize("seed", range(25))
def test_killed_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    storm(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_killed_at_many_random_moments(tmp_path: Path, seed: int) -> None:
    storm(tmp_path, seed)
