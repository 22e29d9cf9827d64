"""`make bench`: every row of every part, as a table for people and as bench.json.

python -m tests.bench [PART ...]      only these parts (module names of this folder)
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.bench import Row

PARTS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def main(wanted: list[str]) -> int:
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    for part in wanted or PARTS:
        with tempfile.TemporaryDirectory(prefix=f"parhelia-bench-{part}-") as folder:
            made = importlib.import_module(f"tests.bench.{part}").rows(Path(folder))
        for row in made:
            print(
                f"{'ok  ' if row.holds else 'MISS'}  {row.row:<64} {row.value:>10.4g} {row.unit:<4} {'' if row.bar is None else f'bar {row.bar:g}'}",
                flush=True,
            )
        rows += made
    Path("bench.json").write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    missed = sum(not row.holds for row in rows)
    print(f"{len(rows)} rows, {missed} above their bar; bench.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
