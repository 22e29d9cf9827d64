"""Set up what the demo, the tests and the benchmarks need; stdlib only, safe to repeat.

    python3 tests/setup.py venv DIR     the environment with the locked packages and this checkout, editable
    python tests/setup.py demo          git, tmux
    python tests/setup.py test          also OpenSSH, npm and, in a cache outside the checkout, the pinned Claude Code and
                                        the clients and suites that speak MCP
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
    "bwrap": "bubblewrap",
}
NEEDS = {
    "demo": ("git", "tmux"),
    "test": ("git", "tmux", "ssh", "rsync", "npm", "strace", "bwrap"),
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


def npm_packages(folder: str, *packages: str) -> None:
    """Install npm packages at fixed versions into the cache, once, whoever else tries at the same time."""
    home = CACHE / folder
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(home), *packages]
    once(home, [command])


def once(home: Path, commands: list[list[str]]) -> None:
    """Run commands that fill a folder of the cache, unless they have been run."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".ready").exists():
            for command in commands:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (home / ".ready").touch()


def mcp_peers() -> tuple[Path, Path]:
    """Where the npm packages that speak MCP lie (`node_modules`), and the environment of the Python ones."""
    pin = pins()
    npm = f"mcp-{pin['node']}-{pin['inspector']}-{pin['conformance']}-{pin['typescript']}"
    return CACHE / npm / "node_modules", CACHE / f"mcp-{pin['probe']}-{pin['fastmcp']}"


def install_mcp_peers() -> None:
    """The inspector, the conformance suite and other clients, each apart from what we ship."""
    pin = pins()
    npm, python = mcp_peers()
    npm_packages(
        npm.parent.name,
        f"node@{pin['node']}",
        f"@modelcontextprotocol/inspector@{pin['inspector']}",
        f"@modelcontextprotocol/conformance@{pin['conformance']}",
        f"@modelcontextprotocol/sdk@{pin['typescript']}",
    )
    packages = [f"amagi-mcp-probe=={pin['probe']}", f"fastmcp=={pin['fastmcp']}"]
    pip = [str(python / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    once(python, [[sys.executable, "-m", "venv", str(python)], pip])


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
            npm_packages(f"claude-{pins()['claude']}", f"@anthropic-ai/claude-code@{pins()['claude']}")
        if argv[0] == "test":
            install_mcp_peers()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
