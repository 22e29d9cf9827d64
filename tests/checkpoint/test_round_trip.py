"""What goes in comes out, all of it."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from parhelia_mcp import failpoint
from parhelia_mcp.checkpoint.compare import diff, export, read_file, text_diff
from parhelia_mcp.checkpoint.create import Source, create
from parhelia_mcp.checkpoint.manifest import AgentFacts, Counters, Facts
from parhelia_mcp.checkpoint.restore import restore
from parhelia_mcp.checkpoint.store import Store, list_all, load
from parhelia_mcp.checkpoint.verify import verify
from parhelia_mcp.errors import NotFound, Refused, Usage
from tests.checkpoint import trees
from tests.checkpoint.trees import describe, take


def test_everything_hard_comes_back_exactly(tmp_path: Path, key: bytes | None) -> None:
    store, workspace = Store(tmp_path / "store", key), tmp_path / "workspace"
    trees.hard_cases(workspace)
    trees.add_socket(workspace)
    taken = take(store, workspace)
    restore(store, taken, tmp_path / "back")
    assert describe(tmp_path / "back") == describe(workspace)
    assert (tmp_path / "back" / "sparse").stat().st_blocks * 512 < 1_000_000
    assert [(one.path, one.why) for one in taken.skipped] == [("workspace/socket", "a socket")]
    assert taken.partial
    trees.git(tmp_path / "back", "fsck", "--strict")
    trees.git(tmp_path / "back", "stash", "pop")
    assert (tmp_path / "back" / "script.sh").read_text().endswith("exit 1\n")


def test_a_second_checkpoint_of_everything_hard_is_the_same(tmp_path: Path, store: Store) -> None:
    workspace = tmp_path / "workspace"
    trees.hard_cases(workspace)
    first, second = take(store, workspace), take(store, workspace)
    assert (first.tree, first.packs) == (second.tree, second.packs)
    assert take(store, workspace, unless_same=True).hash == second.hash
    assert len(list_all(store)) == 2


_NAMES = some.binary(min_size=1, max_size=12).filter(lambda name: name not in (b".", b"..") and not set(name) & {0, 47})
_FILES = some.tuples(
    some.just("file"),
    some.one_of(some.binary(max_size=200), some.integers(0, 400_000).map(lambda n: random.Random(n).randbytes(n))),
    some.integers(0, 0o777),
    some.integers(0, 2**60),
)
_LEAVES = some.one_of(
    _FILES, some.tuples(some.just("link"), some.binary(min_size=1, max_size=50).filter(lambda b: 0 not in b))
)
_TREES = some.dictionaries(
    _NAMES, some.recursive(_LEAVES, lambda x: some.dictionaries(_NAMES, x, max_size=4), max_leaves=12), max_size=6
)


def _build(root: bytes, tree: dict) -> None:
    Path(os.fsdecode(root)).mkdir()
    for name, item in tree.items():
        path = root + b"/" + name
        if isinstance(item, dict):
            _build(path, item)
        elif item[0] == "link":
            Path(os.fsdecode(path)).symlink_to(os.fsdecode(item[1]))
        else:
            Path(os.fsdecode(path)).write_bytes(item[1])
            Path(os.fsdecode(path)).chmod(item[2])
            os.utime(path, ns=(0, item[3]))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=_TREES, after=_TREES, encrypted=some.booleans())
def test_any_tree_comes_back(
    tmp_path_factory: pytest.TempPathFactory, before: dict, after: dict, encrypted: bool
) -> None:
    base = tmp_path_factory.mktemp("any")
    store = Store(base / "store", b"K" * 32 if encrypted else None)
    taken = []
    for number, tree in enumerate((before, after)):
        workspace = base / "workspace"
        if workspace.exists():
            workspace.rename(base / f"was-{number}")
        _build(os.fsencode(workspace), tree)
        taken.append((take(store, workspace), describe(workspace)))
    for number, (one, expected) in enumerate(taken):
        assert verify(store, one) == []
        restore(store, one, base / f"back-{number}")
        assert describe(base / f"back-{number}") == expected
    changes = diff(store, taken[0][0], taken[1][0])
    assert not {f"workspace/{os.fsdecode(name)}" for name in before.keys() - after.keys()} - set(changes.removed)


def test_setuid_is_dropped_and_said_unless_asked_for(tmp_path: Path, store: Store, workspace: Path) -> None:
    (workspace / "tool").write_text("x")
    (workspace / "tool").chmod(0o4755)
    taken = take(store, workspace)
    lowered = restore(store, taken, tmp_path / "plain").lowered
    assert lowered == ("tool",)
    assert stat.S_IMODE((tmp_path / "plain" / "tool").stat().st_mode) == 0o755
    restore(store, taken, tmp_path / "special", special_modes=True)
    assert stat.S_IMODE((tmp_path / "special" / "tool").stat().st_mode) == 0o4755


def test_an_append_to_a_large_file_stores_little(tmp_path: Path, store: Store) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    large = workspace / "log"
    large.write_bytes(random.Random(7).randbytes(30_000_000))
    first = take(store, workspace)
    with large.open("ab") as log:
        log.write(b"more\n" * 1000)
    second = take(store, workspace)
    assert second.stored_bytes - first.stored_bytes < 400_000
    with large.open("r+b") as log:  # and an insert near the start moves everything after it
        rest = log.read()
        log.seek(1000)
        log.write(b"inserted" + rest[1000:])
    third = take(store, workspace)
    assert third.stored_bytes - second.stored_bytes < 600_000
    for number, one in enumerate((first, second, third)):
        restore(store, one, tmp_path / f"back{number}")
    assert (tmp_path / "back2" / "log").read_bytes() == large.read_bytes()
    assert (tmp_path / "back0" / "log").stat().st_size == 30_000_000


def test_a_file_written_in_the_tick_of_the_scan_is_read_again(
    store: Store, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be written once more before the file system's clock moves, and no time would tell."""
    read: list[str] = []
    monkeypatch.setattr(failpoint, "reach", read.append)
    newest = max(path.stat().st_ctime_ns for path in workspace.rglob("*"))
    for started, again in ((newest, True), (newest + 10**9, True), (newest + 10**9, False)):
        with monkeypatch.context() as clock:
            clock.setattr(time, "time_ns", lambda started=started: started)
            read.clear()
            take(store, workspace)
        assert ("checkpoint.read" in read) == again


def test_unreadable_files_make_it_partial(tmp_path: Path, workspace: Path) -> None:
    (workspace / "d1" / "secret").write_text("x")
    (workspace / "d1" / "secret").chmod(0)
    (workspace / "closed").mkdir()
    (workspace / "closed").chmod(0)
    store = Store(tmp_path / "home" / "store")
    (tmp_path / "home").mkdir(mode=0o777)
    (tmp_path / "home").chmod(0o777)
    tmp_path.chmod(0o755)
    take(Store(tmp_path / "warm"), workspace / "d0")  # imports all that the child, who is nobody, may not read
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.chdir(workspace)
                os.chroot(tmp_path)
                os.setuid(65534)
                taken = take(Store(Path("/home/store")), Path("/workspace"))
            else:
                taken = take(store, workspace)
            status = 0 if taken.partial else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    taken = list_all(store)[0]
    skipped = {one.path: one.why for one in taken.skipped}
    assert skipped == {"workspace/d1/secret": "Permission denied", "workspace/closed": "Permission denied"}
    assert verify(store, taken) == []


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path, workspace: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.checkpoint.trees import take\n"
        "from parhelia_mcp.checkpoint.store import Store; from parhelia_mcp import failpoint\n"
        "target = Path(sys.argv[2]) / 'large'\n"
        "failpoint.reach = lambda name: name == 'checkpoint.read' and (target.exists() and getattr(target, sys.argv[3])())\n"
        "Path.grow = lambda self: self.open('ab').write(b'more')\n"
        "Path.shrink = lambda self: __import__('os').truncate(self, max(0, self.stat().st_size - 1000))\n"
        "sys.stdout.buffer.write(take(Store(Path(sys.argv[1])), Path(sys.argv[2])).encode())"
    )
    for number, what in enumerate(("grow", "shrink", "unlink")):
        (workspace / "large").write_bytes(bytes(300_000))
        place = tmp_path / f"store{number}"
        command = [sys.executable, "-W", "ignore", "-c", program, str(place), str(workspace), what]
        ran = subprocess.run(command, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr.decode()
        raw = json.loads(ran.stdout)
        assert raw["changed"] == ["workspace/large"], what
        assert verify(Store(place), raw["id"]) == []


def test_several_sources_lie_side_by_side(tmp_path: Path, store: Store, workspace: Path) -> None:
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "abc.jsonl").write_text('{"a":1}\n')
    facts = Facts(
        trigger="risky",
        task="task-00000000",
        session="task-00000000.1",
        consistent=False,
        pending_tool="Bash",
        counters=Counters(turns=3, tokens=10, usd=0.25),
        agent=AgentFacts(kind="claude", version="2.1.197", cwd="/w", transcript="conversation/abc.jsonl"),
        env_names=("PATH",),
    )
    sources = [
        Source("workspace", workspace, exclude=("f1", "d2/*", "e3/")),
        Source("conversation/abc.jsonl", tmp_path / "talk" / "abc.jsonl"),
        Source("conversation/abc", tmp_path / "talk" / "abc", optional=True),
        Source("extra/talk", tmp_path / "talk"),
    ]
    made = create(store, sources, facts)
    assert load(store, made.id) == made == load(store, made.hash) == load(store, made.id[3:9])
    assert read_file(store, made, "conversation/abc.jsonl") == b'{"a":1}\n'
    restore(store, made, tmp_path / "talk-back", part="extra/talk")
    assert (tmp_path / "talk-back" / "abc.jsonl").read_text() == '{"a":1}\n'
    restore(store, made, tmp_path / "back")
    assert not list((tmp_path / "back").rglob("e3")) and not list((tmp_path / "back").rglob("f1"))
    assert (tmp_path / "back" / "d2").is_dir() and not list((tmp_path / "back" / "d2").iterdir())
    assert len(list_all(store)) == 1
    with pytest.raises(NotFound):
        create(store, [Source("workspace", tmp_path / "nowhere")], facts)
    with pytest.raises(Usage):
        create(store, [Source("a", workspace), Source("a/b", workspace)], facts)


def test_a_parent_is_the_newest_checkpoint_or_the_one_that_was_named(store: Store, workspace: Path) -> None:
    first = take(store, workspace)
    second = take(store, workspace)
    third = take(store, workspace, parent=first.id)
    assert (first.parent, second.parent, third.parent) == (None, first.id, first.id)


def test_diff_names_what_changed_and_shows_it(tmp_path: Path, store: Store, workspace: Path) -> None:
    (workspace / "text").write_text("one\ntwo\n")
    first = take(store, workspace)
    (workspace / "text").write_text("one\n2\n")
    (workspace / "d1" / "e1" / "added").write_text("new")
    (workspace / "large").unlink()
    os.utime(workspace / "d0")
    (workspace / "d3").chmod(0o711)
    second = take(store, workspace)
    changes = diff(store, first, second)
    assert changes.added == ("workspace/d1/e1/added",)
    assert changes.changed == ("workspace/d3", "workspace/text")
    assert changes.removed == ("workspace/large",)
    assert changes.sizes["workspace/text"] == (8, 6)
    assert text_diff(store, first, second, "workspace/text").splitlines()[3:] == [" one", "-two", "+2"]
    assert "Binary" in text_diff(store, first, second, "workspace/large")
    assert text_diff(store, first, second, "workspace/d1/e1/added").splitlines()[3] == "+new"
    with pytest.raises(NotFound):
        text_diff(store, first, second, "workspace/nothing")


def test_an_export_is_a_store_of_its_own(tmp_path: Path, store: Store, workspace: Path) -> None:
    first, second = take(store, workspace), take(store, workspace)
    copy = Store(export(store, first, tmp_path / "copy"))
    assert [one.hash for one in list_all(copy)] == [first.hash]
    assert verify(copy, first.id) == []
    with pytest.raises(Refused):
        export(store, second, tmp_path / "copy")


def test_an_encrypted_store_needs_its_key(tmp_path: Path, workspace: Path) -> None:
    (workspace / "text").write_text("a sentence to look for " * 40)
    taken = take(Store(tmp_path / "store", b"1" * 32), workspace)
    for wrong, code in ((None, "key-needed"), (b"2" * 32, "wrong-key")):
        store = Store(tmp_path / "store", wrong)
        assert [one.id for one in list_all(store)] == [taken.id]
        with pytest.raises(Refused) as refused:
            verify(store, taken)
        assert refused.value.code == code
        with pytest.raises(Refused):
            restore(store, taken, tmp_path / "back")
    later = take(Store(tmp_path / "store"), workspace)
    assert verify(Store(tmp_path / "store"), later) == []
    stored = b"".join(
        path.read_bytes() for path in (tmp_path / "store" / "packs").iterdir() if path.stem == taken.packs[0].hash
    )
    assert b"a sentence to look" not in stored
