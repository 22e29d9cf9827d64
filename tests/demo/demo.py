"""The main job on this machine, as README shows it: a command session on uncommitted work, and its branch.

Nothing of yours is touched: the repository and all state live in a temporary directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="parhelia-demo-") as folder:
        project = Path(folder) / "greeter"
        env = {
            "HOME": folder,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "PARHELIA_HOME": f"{folder}/state",
            "TERM": os.environ.get("TERM", "dumb"),
            "GIT_PAGER": "cat",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "You",
            "GIT_AUTHOR_EMAIL": "you@example.com",
            "GIT_COMMITTER_NAME": "You",
            "GIT_COMMITTER_EMAIL": "you@example.com",
        }

        def do(*argv: str, shown: str | None = None) -> str:
            if shown != "":
                sys.stdout.write(f"$ {shown or ' '.join(argv)}\n")
                sys.stdout.flush()
            done = subprocess.run(
                argv,
                cwd=project,
                env=env,
                check=True,
                stderr=subprocess.STDOUT,
                stdout=subprocess.PIPE if shown == "" else None,
                text=True,
            )
            return done.stdout or ""

        shutil.copytree(HERE / "project", project)
        do("git", "init", "-q", "-b", "main", shown="")
        do("git", "add", "-A", shown="")
        do("git", "commit", "-qm", "Greet in three languages", shown="")
        with (project / "greet.py").open("a") as file:
            file.write("\n\n# an edit that is not committed\n")
        (project / "notes.txt").write_text("an untracked file\n")
        do("git", "status", "--short")
        do("parhelia", "run", "--", "sh", "work.sh")
        task = json.loads(do("parhelia", "list", "--json", shown=""))["tasks"][0]["task_id"]
        do("parhelia", "list")
        do("parhelia", "budget", "show")
        do(
            "git",
            "log",
            "--oneline",
            "--graph",
            "--format=%s (%D)",
            f"parhelia/{task}",
            shown=f"git log --oneline --graph parhelia/{task}",
        )
        do("git", "diff", "main", f"parhelia/{task}")
        do("git", "status", "--short")
        sys.stdout.write("Your tree is as it was; the work is the branch.\n")


if __name__ == "__main__":
    main()
