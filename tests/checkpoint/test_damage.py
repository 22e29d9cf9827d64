"""A damaged or hostile store is found out, and nothing is written from it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from parhelia_mcp.checkpoint import format as form
from parhelia_mcp.checkpoint import restore as restoring
from parhelia_mcp.checkpoint.cipher import Cipher
from parhelia_mcp.checkpoint.format import Content, Entry
from parhelia_mcp.checkpoint.manifest import Manifest, decode
from parhelia_mcp.checkpoint.packs import Writer
from parhelia_mcp.checkpoint.restore import restore
from parhelia_mcp.checkpoint.retention import gc
from parhelia_mcp.checkpoint.store import Store, list_all, load, survey
from parhelia_mcp.checkpoint.verify import verify
from parhelia_mcp.errors import Corrupted, LocalFault, Problem, Refused, Usage
from tests.checkpoint.trees import describe, flat, take


def files_of(store: Store, checkpoint: Manifest) -> list[Path]:
    return [store.manifests / f"{checkpoint.hash}.json", *(store.packs / pack.name for pack in checkpoint.packs)]


def refused(store: Store, checkpoint: str, target: Path, good: str | None) -> None:
    """Restore says corrupted, names the last good checkpoint, and writes nothing."""
    before = sorted(path.name for path in target.parent.iterdir())
    with pytest.raises(Corrupted) as raised:
        restore(store, checkpoint, target)
    assert good is None or good in str(raised.value)
    assert sorted(path.name for path in target.parent.iterdir()) == before


def test_every_flipped_byte_is_found(tmp_path: Path, key: bytes | None) -> None:
    store, workspace = Store(tmp_path / "store", key), tmp_path / "workspace"
    flat(workspace, 40)
    taken = take(store, workspace)
    for path in files_of(store, taken):
        whole = path.read_bytes()
        step = max(1, len(whole) // 60)
        for at in [*range(0, len(whole), step), len(whole) - 1]:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            assert verify(store, taken.id), f"{path.name} at {at}"
            if at % (9 * step) == 0:
                refused(store, taken.id, tmp_path / "target", None)
        path.write_bytes(whole)
    assert verify(store, taken.id) == []


@pytest.mark.parametrize("harm", ["cut", "longer", "empty", "missing", "swapped", "directory", "fifo"])
def test_a_harmed_file_is_found_and_the_last_good_checkpoint_named(
    tmp_path: Path, store: Store, workspace: Path, harm: str
) -> None:
    good = take(store, workspace)
    (workspace / "new").write_bytes(random.Random(5).randbytes(5000))
    taken = take(store, workspace)
    for path in (files_of(store, taken)[-1], files_of(store, taken)[0]):
        whole = path.read_bytes()
        if harm == "cut":
            path.write_bytes(whole[: len(whole) // 2])
        elif harm == "longer":
            path.write_bytes(whole + b"\0")
        elif harm == "empty":
            path.write_bytes(b"")
        elif harm == "swapped":
            path.write_bytes((path.parent / files_of(store, good)[path.suffix == ".pack"].name).read_bytes())
        else:
            path.unlink()
            if harm != "missing":
                path.mkdir() if harm == "directory" else os.mkfifo(path)
        assert verify(store, taken if path.suffix == ".pack" else good) == [] or path.suffix == ".pack"
        if path.suffix == ".pack":
            assert verify(store, taken)
            refused(store, taken.id, tmp_path / "target", good.id)
        elif harm != "missing":
            assert verify(store, taken.id)
            refused(store, taken.id, tmp_path / "target", None)
            assert survey(store) == ([good], [taken.hash])
            with pytest.raises(Corrupted):
                gc(store)
        assert verify(store, good) == []
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(whole)
    restore(store, good, tmp_path / "target")
    assert not (tmp_path / "target" / "new").exists()


def test_the_next_checkpoint_does_not_rely_on_a_damaged_pack(tmp_path: Path, store: Store, workspace: Path) -> None:
    taken = take(store, workspace)
    pack = files_of(store, taken)[1]
    whole = bytearray(pack.read_bytes())
    whole[1000] ^= 1
    pack.write_bytes(whole)
    assert verify(store, taken)
    again = take(store, workspace)
    assert verify(store, again) == []
    restore(store, again, tmp_path / "back")
    assert describe(tmp_path / "back") == describe(workspace)


def forge(store: Store, tree: bytes, objects: list[bytes], trees: list[bytes], **said: object) -> Manifest:
    """A store that is sound but for what its trees say."""
    (store.manifests).mkdir(parents=True, exist_ok=True)
    cipher = Cipher(None)
    writer = Writer(store.packs, cipher)
    for one in objects:
        writer.add(cipher.identify(one), one)
    for one in [*trees, tree]:
        writer.add(cipher.identify(one), one, tree=True)
    pack = writer.finish()
    writer.close()
    facts = {"files": 1, "bytes": 0, **said}
    made = Manifest(
        trigger="manual",
        created_at="2026-11-23T00:00:00.000Z",
        tree=blake3(tree).hexdigest(),
        packs=(pack,),
        **facts,
    ).named()
    (store.manifests / f"{made.hash}.json").write_bytes(made.encode())
    return made


def file(name: bytes, data: bytes = b"x", length: int | None = None) -> Entry:
    size = len(data) if length is None else length
    content = Content(size, form.NO_GROUP, False, ((size, blake3(data).digest()),))
    return Entry(form.FILE, name, 0o644, 0, b"", content.encode())


def folder(name: bytes, tree: bytes) -> Entry:
    return Entry(form.DIRECTORY, name, 0o755, 0, b"", blake3(tree).digest())


def tree(*entries: Entry) -> bytes:
    return form.encode_tree(b"".join(entry.encode() for entry in entries), b"")


_LINK = Entry(form.LINK, b"d", 0o777, 0, b"", b"/tmp")
_DEEP = [tree()]
for _ in range(300):
    _DEEP.append(tree(folder(b"d", _DEEP[-1])))
_WIDE = [tree(*(file(b"%d" % number) for number in range(10)))]
for _ in range(9):
    _WIDE.append(tree(*(folder(b"%d" % number, _WIDE[-1]) for number in range(10))))

HOSTILE: dict[str, Callable[[], tuple[bytes, list[bytes]]]] = {
    "absolute": lambda: (tree(file(b"/tmp/evil")), []),
    "dots": lambda: (tree(file(b"..")), []),
    "climbing": lambda: (tree(file(b"../evil")), []),
    "dot": lambda: (tree(file(b".")), []),
    "empty name": lambda: (tree(file(b"")), []),
    "nul": lambda: (tree(file(b"a\0b")), []),
    "long": lambda: (tree(file(b"n" * 256)), []),
    "twice": lambda: (tree(file(b"a"), file(b"a")), []),
    "out of order": lambda: (tree(file(b"b"), file(b"a")), []),
    "link and directory": lambda: (tree(_LINK, folder(b"d", tree(file(b"evil")))), [tree(file(b"evil"))]),
    "device": lambda: (tree(Entry(b"B", b"sda", 0o644, 0, b"", b"")), []),
    "odd mode": lambda: (tree(file(b"a")._replace(mode=0o107777 & 0xFFFF)), []),
    "no object": lambda: (tree(file(b"a", b"not stored")), []),
    "wrong length": lambda: (tree(file(b"a", b"x", 2)), []),
    "torn": lambda: (tree(file(b"a"))[:-3], []),
    "torn body": lambda: (tree(file(b"a")._replace(body=b"123")), []),
    "torn attributes": lambda: (tree(file(b"a")._replace(xattrs=b"123")), []),
    "no tree": lambda: (tree(folder(b"a", b"not a tree")), [b"not a tree"]),
    "missing tree": lambda: (tree(folder(b"a", tree(file(b"gone")))), []),
    "deep": lambda: (_DEEP[-1], _DEEP[:-1]),
    "many": lambda: (_WIDE[-1], _WIDE[:-1]),
    "more files than said": lambda: (tree(file(b"a"), file(b"b")), []),
    "more bytes than said": lambda: (tree(file(b"a", b"xyz")), []),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tree_writes_nothing(tmp_path: Path, store: Store, name: str) -> None:
    workspace, others = HOSTILE[name]()
    root = tree(folder(b"workspace", workspace))
    made = forge(store, root, [b"x", b"xyz"], [workspace, *others], files=1, bytes=1)
    assert verify(store, made), name
    refused(store, made.id, tmp_path / "target", None)


def test_an_object_that_is_not_what_its_id_says_is_refused(tmp_path: Path, store: Store) -> None:
    """The pack matches its hash and the index its ids; only the bytes behind one are others."""
    inside = tree(file(b"a"))
    store.packs.mkdir(parents=True)
    real = Cipher.identify
    Cipher.identify = lambda self, data: real(self, b"x" if data == b"y" else data)
    try:
        made = forge(store, tree(folder(b"workspace", inside)), [b"y"], [inside], files=1, bytes=1)
    finally:
        Cipher.identify = real
    refused(store, made.id, tmp_path / "target", None)


def test_a_sound_forgery_restores(tmp_path: Path, store: Store) -> None:
    """The control: what the hostile ones are made from is accepted when it is not hostile."""
    made = forge(store, tree(folder(b"workspace", tree(file(b"a")))), [b"x"], [tree(file(b"a"))], files=1, bytes=1)
    restore(store, made, tmp_path / "target")
    assert (tmp_path / "target" / "a").read_text() == "x"


def test_a_link_that_leads_out_is_never_written_through(tmp_path: Path, store: Store) -> None:
    inside = tree(_LINK._replace(body=os.fsencode(tmp_path / "outside")), file(b"e"))
    (tmp_path / "outside").mkdir()
    made = forge(store, tree(folder(b"workspace", inside)), [b"x"], [inside], files=2, bytes=1)
    restore(store, made, tmp_path / "target")
    assert (tmp_path / "target" / "d").is_symlink()
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_bomb_is_refused_for_want_of_room(tmp_path: Path, store: Store) -> None:
    data = bytes(16 << 20)
    name = blake3(data).digest()
    records = ((len(data), name),) * 2_000
    big = Content(len(data) * len(records), form.NO_GROUP, False, records)
    inside = tree(*(Entry(form.FILE, b"%03d" % n, 0o644, 0, b"", big.encode()) for n in range(50)))
    made = forge(store, tree(folder(b"workspace", inside)), [data], [inside], files=50, bytes=big.size * 50)
    with pytest.raises(LocalFault) as refused:
        restore(store, made, tmp_path / "target")
    assert refused.value.code == "disk-full"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_names_that_differ_by_case_are_refused_where_the_disk_takes_them_for_one(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "Read").touch()
    (workspace / "read").touch()
    taken = take(store, workspace)
    restore(store, taken, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    monkeypatch.setattr(restoring, "_folds_case", lambda _: True)
    refused(store, taken.id, tmp_path / "target", None)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "parhelia-checkpoint/2"},
        {"packs": [{"name": "../../etc/passwd", "bytes": 1, "hash": "0" * 64}]},
        {"tree": "../x"},
        {"files": -1},
        {"bytes": True},
        {"trigger": "hacked"},
        {"extra": 1},
        {"skipped": None},
        {"created_at": "yesterday"},
        {"partial": True},
        {"agent": {"kind": "x", "surprise": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_manifest_that_says_something_else_is_damaged(store: Store, workspace: Path, change: dict) -> None:
    raw = take(store, workspace).as_dict() | change
    body = json.dumps({k: v for k, v in raw.items() if k != "id"}, sort_keys=True, separators=(",", ":")).encode()
    name = blake3(body).hexdigest()
    raw["id"] = f"cp-{name[:8]}"
    text = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with pytest.raises(Corrupted):
        decode(text, name)


def test_a_target_that_holds_something_is_refused_with_what_is_there(
    tmp_path: Path, store: Store, workspace: Path
) -> None:
    taken = take(store, workspace)
    target = tmp_path / "target"
    target.mkdir()
    for name in "abcdef":
        (target / name).write_text("mine")
    with pytest.raises(Refused) as raised:
        restore(store, taken, target)
    assert raised.value.code == "target-not-empty" and "6 entries (a, b, c, d, e ...)" in raised.value.message
    done = restore(store, taken, target, force=True)
    assert done.saved == tmp_path / "target.1" and len(list(done.saved.iterdir())) == 6
    assert describe(target) == describe(workspace)
    for bad in (tmp_path / "target" / "large", Path("/")):
        with pytest.raises(Refused):
            restore(store, taken, bad, force=True)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(Refused):
        restore(store, taken, tmp_path / "link", force=True)
    with pytest.raises(Problem):
        restore(store, taken, tmp_path / "new", part="workspace/large")


def test_ids_are_found_by_prefix_and_never_guessed(store: Store, workspace: Path) -> None:
    taken = take(store, workspace)
    for good in (taken.id, taken.hash, taken.id[:7], taken.hash[:4]):
        assert load(store, good).hash == taken.hash
    for bad in ("", "cp-", "cp-12", "../../x", "cp-zzzzzzzz", "CP-" + taken.hash[:8]):
        with pytest.raises(Usage):
            load(store, bad)
    (store.manifests / f"{taken.hash[:8]}{'0' * 56}.json").write_text("{}")
    with pytest.raises(Usage) as raised:
        load(store, taken.id)
    assert raised.value.code == "ambiguous-id"
    assert len(list_all(store)) == 1
