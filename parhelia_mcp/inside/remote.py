"""What a provider asks of a live sandbox by running a program in it; only the standard library, so that it is quick.

    python -m parhelia_mcp.inside.remote read TASK_DIR PATH OFFSET LIMIT     the bytes on stdout; none: no such file
    python -m parhelia_mcp.inside.remote write TASK_DIR PATH SIZE            stdin becomes the file, by rename
    python -m parhelia_mcp.inside.remote names TASK_DIR PATH                 a JSON list, sorted
    python -m parhelia_mcp.inside.remote control TASK_DIR N                  one request on stdin, its answer on stdout

Exit codes: 0, and those below.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path

from parhelia_mcp import files

NO_FILE = 44  # `read` of a file that is not there
OUTSIDE = 45  # the path leads out of the task's directory
SILENT = 46  # nobody answers on the control socket
WHOLE = -1  # the LIMIT that means: to the end


def main(argv: list[str]) -> int:
    operation, folder, *rest = argv
    root = Path(folder).resolve()
    if operation == "control":
        return control(root / "sessions" / rest[0])
    path = (root / rest[0]).resolve()
    if not path.is_relative_to(root):
        return OUTSIDE
    if operation == "read":
        return read(path, int(rest[1]), int(rest[2]))
    if operation == "write":
        return write(path, int(rest[1]))
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    sys.stdout.write(json.dumps(names))
    return 0


def read(path: Path, offset: int, limit: int) -> int:
    """Copy the bytes to stdout, in pieces."""
    if not path.is_file():
        return NO_FILE
    left = limit if limit != WHOLE else sys.maxsize
    while left > 0 and (data := files.read_at(path, offset, min(left, 1 << 20))):
        files.write_all(1, data)
        offset, left = offset + len(data), left - len(data)
    return 0


def write(path: Path, size: int) -> int:
    """Make the file hold what comes on stdin, whole or not at all: a line that broke looks like the end of the input."""
    files.private_dir(path.parent)
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with draft.open("xb") as target:
            os.fchmod(target.fileno(), 0o600)
            shutil.copyfileobj(sys.stdin.buffer, target, 1 << 20)
            if target.tell() != size:
                raise EOFError(f"{target.tell()} of {size} bytes came")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return 0


def control(session_dir: Path) -> int:
    """Put the request to the runner and hand on its answer."""
    state = files.read_json(session_dir / "state.json") or {}
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(state.get("control") or "")
            door.sendall(sys.stdin.buffer.readline())
            answer = door.makefile("rb").readline()
    except OSError as problem:
        sys.stderr.write(f"{problem}\n")
        return SILENT
    files.write_all(1, answer)
    return 0 if answer.endswith(b"\n") else SILENT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
