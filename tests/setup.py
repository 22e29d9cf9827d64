"""Set up what the demo, the tests and the benchmarks need; stdlib only, safe to repeat.

    python3 tests/setup.py venv DIR     the environment with the locked packages and this checkout, editable
    python tests/setup.py demo          git, tmux
    python tests/setup.py test          also OpenSSH, npm and the pinned Claude Code, in a cache outside the checkout
    python tests/setup.py bench         also the peers: restic, borg, rsync

A missing tool is installed where root on Debian may; elsewhere it is named in one line with the command that does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parhelia-tests"
DEBIAN = {  # program -> Debian package
    "git": "git",
    "tmux": "tmux",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "npm": "npm",
    "restic": "restic",
    "borg": "borgbackup",
    "strace": "strace",
}
NEEDS = {
    "demo": ("git", "tmux"),
    "test": ("git", "tmux", "ssh", "rsync", "npm", "strace"),
    "bench": ("git", "tmux", "ssh", "rsync", "npm", "restic", "borg"),
}


def pins() -> dict[str, str]:
    return tomllib.loads((ROOT / "tests" / "pins.toml").read_text())


def claude() -> Path:
    """Where the pinned Claude Code lies once `setup.py test` has run."""
    return CACHE / f"claude-{pins()['claude']}" / "node_modules" / ".bin" / "claude"


def tools(names: tuple[str, ...]) -> None:
    missing = [name for name in names if not shutil.which(name)]
    if not missing:
        return
    packages = [DEBIAN[name] for name in missing]
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"missing: {', '.join(missing)}. Install: sudo {' '.join(command)}   (macOS: brew install {' '.join(packages)})"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def npm_package(name: str, version: str, folder: str, program: str) -> Path:
    """Install one npm package at one version into the cache, once, whoever else tries at the same time."""
    home = CACHE / folder
    home.mkdir(parents=True, exist_ok=True)
    binary = home / "node_modules" / ".bin" / program
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".ready").exists():
            subprocess.run(
                [
                    "npm",
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                    "--prefix",
                    str(home),
                    f"{name}@{version}",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            (home / ".ready").touch()
    return binary


def venv(target: Path) -> None:
    python = target / "bin" / "python"
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(target)], capture_output=True, text=True, check=False)
        if made.returncode:
            if os.geteuid() == 0 and shutil.which("apt-get"):
                DEBIAN["venv"] = "python3-venv"
                shutil.rmtree(target, ignore_errors=True)
                tools(("venv",))
                subprocess.run([sys.executable, "-m", "venv", str(target)], check=True)
            else:
                sys.exit("python3 -m venv does not work here. Install: sudo apt-get install -y python3-venv")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements-dev.lock")], check=True)
    subprocess.run([*pip, "--no-deps", "-e", str(ROOT)], check=True)


def main(argv: list[str]) -> None:
    if len(argv) == 2 and argv[0] == "venv":
        venv(Path(argv[1]))
    elif len(argv) == 1 and argv[0] in NEEDS:
        tools(NEEDS[argv[0]])
        if argv[0] in ("test", "bench"):
            npm_package("@anthropic-ai/claude-code", pins()["claude"], f"claude-{pins()['claude']}", "claude")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
