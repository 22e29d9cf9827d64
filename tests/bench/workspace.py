"""How long a repository with 1 GB of history takes to pack, the first time and again, and how much is sent."""

from __future__ import annotations

import os
import statistics
import subprocess
import tarfile
import time
from pathlib import Path

from parhelia_mcp import workspace
from tests.bench import Row

COMMITS, FILES, BLOB = 400, 3000, 2_300_000


def rows(workdir: Path) -> list[Row]:
    repository = _giant(workdir / "giant")
    tar = workdir / "tracked.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(repository, "top", filter=lambda entry: None if entry.name == "top/.git" else entry)
    firsts, agains, sent, new = [], [], 0, 0
    for number in range(3):
        cache = workdir / f"cache{number}"
        seconds, packed = _timed(repository, workdir / f"first{number}", cache)
        firsts.append(seconds)
        sent = sum(path.stat().st_size for _, path in packed.sources)
        (repository / "f/7").write_text(f"again {number}\n")
        seconds, packed = _timed(repository, workdir / f"again{number}", cache)
        agains.append(seconds)
        new = packed.bytes
    name = "pack a repository with 1 GB of history"
    measured = [
        (f"{name}: first", statistics.median(firsts), "s", 0.5),
        (f"{name}: again", statistics.median(agains), "s", 0.15),
        (f"{name}: bytes of the first / tar of the tracked files", sent / tar.stat().st_size, "x", 1.1),
        (f"{name}: bytes of the next", new / 1000, "kB", 10.0),
    ]
    return [Row(row, round(value, 4), unit, bar, value <= bar) for row, value, unit, bar in measured]


def _timed(repository: Path, out: Path, cache: Path) -> tuple[float, workspace.Packed]:
    out.mkdir()
    start = time.monotonic()
    packed = workspace.pack(repository, out, cache=cache)
    return time.monotonic() - start, packed


def _giant(repository: Path) -> Path:
    """A working tree of 3,001 files (53 MB) over 400 commits of which each replaced a large file."""
    repository.mkdir(parents=True)
    git = ["git", "-c", "core.compression=0", "-c", "init.defaultBranch=main", "-C", str(repository)]
    subprocess.run([*git, "init", "-q"], check=True)
    with subprocess.Popen([*git, "fast-import", "--quiet", "--done"], stdin=subprocess.PIPE) as importer:
        stream = importer.stdin
        assert stream
        for number in range(COMMITS):
            stream.write(b"commit refs/heads/main\ncommitter B <b@b> %d +0000\ndata 1\nc\n" % (1_700_000_000 + number))
            if number == 0:
                for index in range(FILES):
                    content = os.urandom(8_500).hex().encode()
                    stream.write(b"M 100644 inline f/%d\ndata %d\n%s\n" % (index, len(content), content))
            stream.write(b"M 100644 inline large\ndata %d\n%s\n" % (BLOB, os.urandom(BLOB)))
        stream.write(b"done\n")
        stream.close()
    subprocess.run([*git, "checkout", "-q", "main"], check=True)
    for index in range(20):
        (repository / f"f/{index * 3}").write_text(f"changed {index}\n")
    for index in range(5):
        (repository / f"new{index}").write_text(f"untracked {index}\n")
    return repository
