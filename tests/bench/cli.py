"""Starting the command line, beside a bare click program that imports pydantic with one model; and submit to running."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.bench import Row, at_most, medians, program
from tests.front import PARHELIA, Front

BARE = """
import click
from pydantic import BaseModel
class Row(BaseModel):
    name: str
@click.command()
def main():
    click.echo(Row(name="x").model_dump_json())
main()
"""
ROUNDS = 15


def rows(workdir: Path) -> list[Row]:
    front = Front(workdir)
    try:
        front.repository(**{f"src/m{n}.py": f"n = {n}\n" for n in range(40)})
        front.run("run", "--", "seq", "2000")
        task = front.json("list")["tasks"][0]["task_id"]
        bare = workdir / "bare.py"
        bare.write_text(BARE)
        ours = {
            name: program([PARHELIA, *argv], cwd=front.cwd, env=front.env) for name, argv in _commands(task).items()
        }
        took = medians({"bare": program([sys.executable, str(bare)], env=front.env), **ours}, ROUNDS)
        started = [
            at_most(f"parhelia {name}, beside bare click + pydantic", took[name] / took["bare"], "x", 1.25)
            for name in ours
        ]
        return [*started, _submit_to_running(front)]
    finally:
        front.close()


def _commands(task: str) -> dict[str, tuple[str, ...]]:
    return {"list": ("list",), "status": ("status",), "logs": ("logs", task, "--tail", "100")}


def _submit_to_running(front: Front) -> Row:
    """From the start of the command line to the command's own clock."""
    waited = []
    for _ in range(ROUNDS):
        began = time.time()
        done = front.run("run", "--json", "--", sys.executable, "-S", "-c", "import time; print(time.time())")
        waited.append(float(Path(json.loads(done.stdout)["output_path"]).read_text()) - began)
    return at_most("submit on local: command line to command running", sorted(waited)[len(waited) // 2], "s", 0.6)
