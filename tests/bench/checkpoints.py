"""Checkpoints against restic, borg, git, tar and cp: the same trees, interleaved, medians of the rounds.

    python -m tests.bench.checkpoints WORKDIR [FILES]

Ours is timed as a process of its own, interpreter included, as the others are; only the diff is in process. Restores go
to the same file system. Restic and borg without a cache of their own would be slower: they keep theirs in WORKDIR.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from parhelia_mcp.checkpoint.compare import diff
from parhelia_mcp.checkpoint.create import Source, create
from parhelia_mcp.checkpoint.manifest import Facts
from parhelia_mcp.checkpoint.restore import restore
from parhelia_mcp.checkpoint.store import Store, list_all
from parhelia_mcp.checkpoint.verify import verify
from tests.bench import Row, at_most

FILES = 57_000
ROUNDS = 3
EDITED = 20
SNAPSHOTS = 21
_RUN = 1500

Command = list[str]


def workspace(root: Path, count: int, *, seed: int = 1) -> None:
    """`count` files of source-like text, 11 kB in the mean, twelve a directory."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randrange(2, 11))) for _ in range(4000)]
    line = " ".join
    pool = "\n".join(line(dice.choices(words, k=dice.randrange(3, 12))) + ";" for _ in range(250_000)).encode()
    for number in range(count):
        folder = root / f"pkg{number // 1200:03}" / f"m{number // 12 % 100:02}"
        if number % 12 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        runs = min(120, int(dice.lognormvariate(1, 1.5)) + 1)  # short, so that nothing long is there twice
        starts = [dice.randrange(len(pool) - _RUN) for _ in range(runs)]
        (folder / f"file{number}.js").write_bytes(b"// %d\n" % number + b"".join(pool[at : at + _RUN] for at in starts))


def edit(root: Path, turn: int) -> None:
    dice = random.Random(turn)
    names = sorted(root.glob("pkg*/m*"))
    for number in range(EDITED):
        path = sorted(dice.choice(names).iterdir())[0]
        path.write_bytes(path.read_bytes()[:3000] + b"// edit %d %d\n" % (turn, number))


class Peer:
    """One way to keep a directory: commands for each operation, run with a home of its own."""

    def __init__(self, base: Path, name: str) -> None:
        self.name = name
        self.home = base / name
        self.home.mkdir()
        self.store = self.home / "store"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "RESTIC_PASSWORD": "x",
            "RESTIC_REPOSITORY": str(self.store),
            "BORG_REPO": str(self.store),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }

    def run(self, command: Command, cwd: Path | None = None) -> float:
        start = time.perf_counter()
        subprocess.run(command, cwd=cwd, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    def ours(self, *argv: object) -> Command:
        return [sys.executable, "-m", "tests.bench.checkpoints", "do", *map(str, argv)]

    def prepare(self, tree: Path) -> None:
        if self.name == "restic":
            self.run(["restic", "init", "-q"])
        elif self.name == "borg":
            self.run(["borg", "init", "--encryption", "none"])
        elif self.name == "git":
            self.run(["git", "init", "-q", "--bare", str(self.store)])
            for key, value in (
                ("core.compression", "0"),
                ("index.version", "4"),
                ("core.untrackedCache", "true"),
                ("gc.auto", "0"),
            ):
                self.run(["git", f"--git-dir={self.store}", "config", key, value])

    def snapshot(self, tree: Path, number: int) -> float:
        if self.name == "git":
            git = ["git", f"--git-dir={self.store}", f"--work-tree={tree}", "-c", "user.name=x", "-c", "user.email=x"]
            return self.run([*git, "add", "-A"], tree) + self.run(
                [*git, "commit", "-q", "--allow-empty", "-m", "x"], tree
            )
        commands = {
            "parhelia": self.ours("create", self.store, tree),
            "restic": ["restic", "backup", "-q", "."],
            "borg": ["borg", "create", "--compression", "zstd,1", f"::s{number}", "."],
            "tar": ["tar", "-I", "zstd -1", "-cf", str(self.home / f"s{number}.tar"), "."],
        }
        return self.run(commands[self.name], tree)

    def verify(self) -> float:
        commands = {
            "parhelia": self.ours("verify", self.store),
            "restic": ["restic", "check", "-q", "--read-data"],
            "borg": ["borg", "check", "--verify-data"],
        }
        return self.run(commands[self.name])

    def restore(self, tree: Path, target: Path) -> float:
        commands = {
            "parhelia": self.ours("restore", self.store, target),
            "restic": ["restic", "restore", "-q", "latest", "--target", str(target)],
            "cp": ["cp", "-a", str(tree), str(target)],
        }
        taken = self.run(commands[self.name])
        shutil.rmtree(target)
        return taken

    def stored(self) -> int:
        return sum(path.stat().st_size for path in self.store.rglob("*") if path.is_file() and path.name != "cache")


def interleaved(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each, taken in turns so that a noisy minute hits all."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            taken[name].append(measure())
    return {name: statistics.median(times) for name, times in taken.items()}


def _first(base: Path, tree: Path) -> tuple[dict[str, Peer], dict[str, float]]:
    peers: dict[str, Peer] = {}

    def once(name: str) -> Callable[[], float]:
        def measure() -> float:
            shutil.rmtree(base / name, ignore_errors=True)
            peers[name] = Peer(base, name)
            peers[name].prepare(tree)
            return peers[name].snapshot(tree, 0)

        return measure

    names = ("parhelia", "restic", "borg", "git", "tar")
    return peers, interleaved({name: once(name) for name in names}, ROUNDS)


def _ratios(what: str, times: dict[str, float], bars: dict[str, float]) -> list[Row]:
    ours = times["parhelia"]
    rows = [at_most(f"{what}: parhelia", ours, "s")]
    for name, taken in times.items():
        if name != "parhelia":
            rows.append(at_most(f"{what}: ratio to {name}", ours / taken, f"x ({taken:.2f} s)", bars.get(name)))
    return rows


def rows(workdir: Path, *, count: int = FILES) -> list[Row]:
    """Measure everything below `workdir`, which is emptied again; about ten minutes with 57,000 files."""
    base = Path(workdir) / "checkpoints"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    try:
        tree = base / "workspace"
        workspace(tree, count)
        peers, first = _first(base, tree)
        found = _ratios(f"first checkpoint, {count} files", first, {"restic": 1 / 2})
        incremental = {name: peers[name] for name in ("parhelia", "restic", "borg", "git")}
        found += _incremental(tree, incremental)
        found += _reading(base, tree, incremental)
        found += _large(base)
        return found
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _incremental(tree: Path, peers: dict[str, Peer]) -> list[Row]:
    number = 0
    quiet: dict[str, list[float]] = {name: [] for name in peers}
    edited: dict[str, list[float]] = {name: [] for name in peers}
    time.sleep(0.1)  # files written in the last tick of the clock are read again, by everybody
    for turn in range(SNAPSHOTS - 1):
        number += 1
        edit(tree, turn)
        for name, peer in peers.items():
            edited[name].append(peer.snapshot(tree, number))
    sizes = {name: peer.stored() for name, peer in peers.items()}
    for _ in range(ROUNDS):
        number += 1
        for name, peer in peers.items():
            quiet[name].append(peer.snapshot(tree, number))
    found = _ratios("no change", {name: statistics.median(t) for name, t in quiet.items()}, {"restic": 1 / 6})
    found += _ratios(
        f"{EDITED} small edits", {name: statistics.median(t) for name, t in edited.items()}, {"restic": 1 / 5}
    )
    for name in [one for one in peers if one != "parhelia"]:
        bar = 1.0 if name == "restic" else None
        unit = f"x ({sizes[name] / 1e6:.1f} MB)"
        found.append(
            at_most(
                f"stored after {SNAPSHOTS} checkpoints: ratio to {name}", sizes["parhelia"] / sizes[name], unit, bar
            )
        )
    return found


def _reading(base: Path, tree: Path, peers: dict[str, Peer]) -> list[Row]:
    checks = interleaved({name: peers[name].verify for name in ("parhelia", "restic", "borg")}, 1)
    found = _ratios("verify every byte", checks, {"restic": 1 / 5})
    fast = Path("/dev/shm") if Path("/dev/shm").is_dir() else base
    target = fast / f"parhelia-bench-{os.getpid()}"
    copier = Peer(base, "cp")
    backs = interleaved(
        {
            "parhelia": lambda: peers["parhelia"].restore(tree, target),
            "restic": lambda: peers["restic"].restore(tree, target),
            "cp": lambda: copier.restore(tree, target),
        },
        ROUNDS,
    )
    found += _ratios("restore, every byte checked", backs, {"cp": 1.2})
    store = Store(peers["parhelia"].store)
    known = list_all(store)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        diff(store, known[0], known[-1])
        times.append(time.perf_counter() - start)
    return [*found, at_most("diff of two checkpoints, in process", statistics.median(times), "s", 0.1)]


def _large(base: Path) -> list[Row]:
    tree = base / "large"
    tree.mkdir()
    with (tree / "log").open("wb") as log:
        for number in range(500):
            log.write(random.Random(number).randbytes(1_000_000))
    ours = Peer(base, "parhelia-large")
    ours.name = "parhelia"
    first = ours.snapshot(tree, 0)
    before = ours.stored()
    with (tree / "log").open("ab") as log:
        log.write(random.Random(1000).randbytes(1_000_000))
    again = ours.snapshot(tree, 1)
    return [
        at_most("first checkpoint of a 500 MB file", first, "s"),
        at_most("1 MB appended to 500 MB: time", again, "s"),
        at_most("1 MB appended to 500 MB: growth", (ours.stored() - before) / 1e6, "MB", 3.0),
    ]


def _do(action: str, store: Store, path: Path) -> None:
    if action == "create":
        create(store, [Source("workspace", path)], Facts(trigger="manual"))
    elif action == "verify":
        wrong = [problem for one in list_all(store)[-1:] for problem in verify(store, one)]
        if wrong:
            sys.exit("\n".join(wrong))
    else:
        restore(store, list_all(store)[-1], path)


if __name__ == "__main__":
    if sys.argv[1] == "do":
        _do(sys.argv[2], Store(Path(sys.argv[3])), Path(sys.argv[-1]))
    else:
        for measured in rows(Path(sys.argv[1]), count=int(sys.argv[2]) if len(sys.argv) > 2 else FILES):
            print(
                f"{'ok ' if measured.holds else 'NO '} {measured.row:60} {measured.value:10} {measured.unit} {measured.bar or ''}"
            )
