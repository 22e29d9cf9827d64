"""Say once a session that a command is too heavy for this machine, and what running it elsewhere would cost.

`PARHELIA_HINT` is `advise` (default: context for the model), `ask` (the user decides) or `off`. Any failure is silence.
"""

import posix
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import call
from state import budget, home

TRAINERS = frozenset("torchrun deepspeed accelerate axolotl llamafactory-cli vllm".split())
TESTERS = frozenset("pytest tox nox jest vitest".split())
BUILDERS = frozenset("bazel ninja gradle gradlew mvn mvnw".split())
VERBS = {
    "cargo": ("build", "test", "bench"),
    "docker": ("build", "buildx"),
    "go": ("test", "build"),
    "make": ("test", "all", "check", "build"),
    "npm": ("test", "build"),
    "pnpm": ("test", "build"),
    "yarn": ("test", "build"),
}
BIG_TREE = 3000  # tracked files from which a whole test run or build is minutes rather than seconds


def kind(words):
    """`gpu`, `tests` or `build` for a heavy command, else None."""
    name, given = words[0], words[1:]
    if name.startswith("python"):
        script = next((word for word in given if not word.startswith("-")), "")
        if given[:1] == ["-m"] and given[1:]:
            return kind(given[1:])
        return "gpu" if "train" in script.rpartition("/")[2] and script.endswith(".py") else None
    if name in TRAINERS:
        return "gpu"
    plain = [word for word in given if not word.startswith("-")]
    if name in TESTERS:
        return None if any("::" in word or word.endswith((".py", ".js", ".ts")) for word in plain) else "tests"
    if name in BUILDERS:
        return "build"
    if name in VERBS and any(word in VERBS[name] for word in plain):
        return "tests" if "test" in plain else "build"
    return "build" if name == "make" and any(word.startswith("-j") for word in given) else None


def tracked(folder):
    """How many files git tracks around `folder`, from the index's header; 0 where there is none."""
    while folder:
        try:
            descriptor = posix.open(folder + "/.git/index", posix.O_RDONLY)
        except OSError:
            folder = folder.rpartition("/")[0]
            continue
        head = posix.read(descriptor, 12)
        return int.from_bytes(head[8:12], "big") if head[:4] == b"DIRC" else 0
    return 0


def said_before(session):
    """Whether this session was told already; remembers it otherwise. The last 50 sessions are kept."""
    folder = posix.environ.get(b"CLAUDE_PLUGIN_DATA") or home()
    try:
        descriptor = posix.open(folder + b"/hinted", posix.O_RDWR | posix.O_CREAT, 0o600)
    except FileNotFoundError:
        posix.mkdir(folder, 0o700)
        descriptor = posix.open(folder + b"/hinted", posix.O_RDWR | posix.O_CREAT, 0o600)
    known = posix.read(descriptor, 1 << 14).decode().split()
    if session in known:
        return True
    posix.lseek(descriptor, 0, 0)
    posix.ftruncate(descriptor, 0)
    posix.write(descriptor, "\n".join([*known[-49:], session]).encode())
    return False


def price(heavy):
    rates = (budget() or {}).get("rates")
    if not rates:
        return "its price: parhelia budget estimate" + (" --gpu A10" if heavy == "gpu" else " --cpu 16")
    cores, gpu = (4, rates["gpu"]["A10"]) if heavy == "gpu" else (16, 0.0)
    return f"about ${rates['cpu_core'] * cores + rates['memory_gb'] * 16 + gpu:.2f} an hour on modal"


def advice(heavy, command):
    size = "--gpu A10" if heavy == "gpu" else "--cpu 16"
    what = {"gpu": "looks like GPU work", "tests": "runs the tests of a big tree", "build": "is a long build"}[heavy]
    command = " ".join(command.split())
    shown = command if len(command) <= 120 else command[:117] + "..."
    return (
        f"Parhelia: `{shown}` {what}. It can run in a separate session instead, with this workspace as it is and the "
        f"result back as a branch ({price(heavy)}): parhelia run {size} --provider modal -d -- COMMAND. "
        "Only a suggestion; it is made once a session."
    )


def main():
    mode = posix.environ.get(b"PARHELIA_HINT", b"advise")
    event = call.read()
    command = str(event.get("tool_input", {}).get("command", ""))
    found = [heavy for words in call.commands(command) if (heavy := kind(words))]
    if mode == b"off" or not found:
        call.leave()
    heavy = found[0]
    if heavy == "gpu" and call.exists("/dev/nvidiactl"):
        call.leave()
    if heavy != "gpu" and tracked(str(event.get("cwd", ""))) < BIG_TREE:
        call.leave()
    if not said_before(str(event.get("session_id", ""))):
        call.answer("ask" if mode == b"ask" else None, advice(heavy, command))
    call.leave()


try:
    main()
except (OSError, ValueError, TypeError, KeyError):
    call.leave()  # advice fails open
