"""What is removed, what never is, and what goes with it."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from parhelia_mcp.checkpoint import create as create_module
from parhelia_mcp.checkpoint.create import Source, create
from parhelia_mcp.checkpoint.manifest import Facts, Manifest
from parhelia_mcp.checkpoint.retention import delete, expires_at, gc, retain
from parhelia_mcp.checkpoint.store import Store, list_all
from parhelia_mcp.checkpoint.verify import verify
from parhelia_mcp.errors import NotFound, Refused
from parhelia_mcp.model import moment
from parhelia_mcp.spec import CheckpointPolicy
from tests.checkpoint.trees import flat, take


def made(
    store: Store, workspace: Path, trigger: str, session: str = "task-00000000.1", pinned: bool = False
) -> Manifest:
    (workspace / "turn").write_bytes(random.randbytes(20))
    return create(store, [Source("workspace", workspace)], Facts(trigger=trigger, session=session, pinned=pinned))


def left(store: Store) -> list[str]:
    return [one.id for one in list_all(store)]


def test_too_many_go_oldest_first_and_important_ones_stay(store: Store, workspace: Path) -> None:
    all_of = [
        made(store, workspace, trigger) for trigger in ("periodic", "manual", "risky", "error", "detach", "periodic")
    ]
    now = moment(all_of[-1].created_at)
    removed = retain(store, CheckpointPolicy(max_per_session=2), now)
    assert removed.checkpoints == (all_of[2].id, all_of[0].id)
    assert left(store) == [all_of[number].id for number in (1, 3, 4, 5)]
    assert all(verify(store, one) == [] for one in list_all(store))
    assert retain(store, CheckpointPolicy(max_per_session=2), now).checkpoints == ()


def test_old_ones_go_and_final_ones_go_later(store: Store, workspace: Path) -> None:
    first = [made(store, workspace, trigger) for trigger in ("periodic", "complete", "periodic")]
    other = made(store, workspace, "periodic", "task-00000000.2")
    pinned = made(store, workspace, "periodic", "task-00000000.3", pinned=True)
    last = made(store, workspace, "periodic", "task-00000000.3")
    policy = CheckpointPolicy(retention_days=7)
    start = moment(last.created_at)
    assert retain(store, policy, start + timedelta(days=6.9)).checkpoints == ()
    assert retain(store, policy, start + timedelta(days=7.1)).checkpoints == (first[0].id,)
    assert retain(store, policy, start + timedelta(days=29)).checkpoints == (first[1].id,)
    assert left(store) == [first[2].id, other.id, pinned.id, last.id]
    assert moment(expires_at("error", start, policy)) - start == timedelta(days=28)


def test_a_delete_is_all_or_nothing_and_frees_the_packs(store: Store, workspace: Path) -> None:
    first = take(store, workspace)
    shutil.rmtree(workspace / "d1")
    (workspace / "big").write_bytes(random.Random(1).randbytes(2_000_000))
    second = take(store, workspace)
    (workspace / "big").unlink()
    third = take(store, workspace)
    with pytest.raises(NotFound):
        delete(store, [first.id, "cp-00000000"])
    assert len(left(store)) == 3
    removed = delete(store, [second.id])
    assert removed.checkpoints == (second.id,) and removed.bytes > 2_000_000
    assert left(store) == [first.id, third.id]
    assert all(verify(store, one) == [] for one in list_all(store))
    pinned = made(store, workspace, "manual", pinned=True)
    with pytest.raises(Refused):
        delete(store, [pinned.id])
    assert delete(store, [pinned.id, first.id, third.id], pinned=True).packs >= 1
    assert left(store) == [] and list(store.packs.iterdir()) == []


def test_a_mostly_dead_pack_is_left_behind(tmp_path: Path, store: Store) -> None:
    workspace = tmp_path / "workspace"
    flat(workspace, 50)
    (workspace / "bulk").write_bytes(random.Random(2).randbytes(1_000_000))
    first = take(store, workspace)
    (workspace / "bulk").unlink()
    second = take(store, workspace)
    assert set(second.packs).isdisjoint(first.packs)
    delete(store, [first.id])
    assert verify(store, second) == []
    third = take(store, workspace)
    assert third.tree == second.tree and third.packs == second.packs
    assert sum(path.stat().st_size for path in store.packs.iterdir()) < 200_000


def test_packs_do_not_grow_without_end_in_number(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.setattr(create_module, "_MOST_PACKS", 8)
    for number in range(20):
        (workspace / f"f{number}").write_bytes(random.Random(number).randbytes(4000))
        last = take(store, workspace)
        assert len(last.packs) <= 9
    assert len(last.packs) < 6
    assert verify(store, last) == []
    for one in list_all(store)[:-1]:
        assert verify(store, one) == []


def test_reading_a_store_imports_nothing_heavy() -> None:
    program = (
        "import sys; import parhelia_mcp.checkpoint.create, parhelia_mcp.checkpoint.restore, parhelia_mcp.checkpoint.compare;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'pydantic','anyio','asyncio','modal','mcp','cryptography','zstandard','blake3','tilecdc','difflib','sqlite3'}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list_all(Store(tmp_path / "nothing")) == []
    assert gc(Store(tmp_path / "new")).packs == 0
