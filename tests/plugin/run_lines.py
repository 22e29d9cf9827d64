"""Runs command lines (a JSON list of argv on stdin) one after the other, each in a fork, which saves each its imports.

Prints a JSON list of their exit codes and output.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import tempfile

from parhelia_mcp import cli, verbs


def run(line: list[str]) -> tuple[int, str]:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.argv = ["parhelia", *line]
            cli.main()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return code, said.read().decode(errors="replace")


def main() -> None:
    lines = json.load(sys.stdin)
    for module in pkgutil.iter_modules(verbs.__path__):
        importlib.import_module(f"{verbs.__name__}.{module.name}")
    found = [run(line) for line in lines]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
