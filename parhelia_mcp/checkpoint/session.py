"""What of a session goes into a checkpoint and where it comes back: workspace, conversation, task list, screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from parhelia_mcp.checkpoint import restore as restoring
from parhelia_mcp.checkpoint import trees
from parhelia_mcp.checkpoint.create import Source
from parhelia_mcp.checkpoint.manifest import Manifest
from parhelia_mcp.checkpoint.store import Store, reader
from parhelia_mcp.errors import NotFound

SCREEN = "extra/screen.txt"
TASKS = "extra/tasks"


def transcript(home: Path, conversation: str | None) -> Path | None:
    """The file of a conversation of Claude Code in `home`, under whatever directory's name; None before it exists."""
    if not conversation:
        return None
    found = (home / ".claude" / "projects").glob(f"*/{conversation}.jsonl")
    return next((path for path in found if _inside(home, path)), None)


def sources(
    workspace: Path, home: Path, conversation: str | None, exclude: tuple[str, ...], screen: Path | None = None
) -> Iterator[Source]:
    """Everything to keep: the workspace, the conversation with what belongs to it, the text of the screen."""
    yield Source("workspace", workspace, exclude=exclude)
    if talk := transcript(home, conversation):
        yield Source(f"conversation/{talk.name}", talk, optional=True)
        beside = {f"conversation/{talk.stem}": talk.with_suffix(""), TASKS: _tasks(home, talk.stem)}
        for name, folder in beside.items():
            if folder.is_dir() and _inside(home, folder):
                yield Source(name, folder, optional=True)
    if screen and screen.exists():
        yield Source(SCREEN, screen)


def conversation_in(kept: Iterable[Source]) -> str | None:
    """Where in the checkpoint the conversation will lie."""
    return next((one.name for one in kept if one.name.endswith(".jsonl")), None)


def restore(store: Store, wanted: Manifest, workspace: Path, home: Path, project: str, aside: Path) -> None:
    """Make `workspace`, which is empty or absent, and the conversation in `home` what they were. Raises Problem.

    `project` is the directory's name under which the client looks for conversations of this workspace. One that is
    there goes `aside`, out of the client's sight: it may be a later form of the same one.
    """
    restoring.restore(store, wanted, workspace, force=True)
    if not wanted.agent.transcript:
        return
    _put_back(store, wanted, "conversation", home / ".claude" / "projects" / project, aside)
    if not has_tasks(store, wanted):
        return
    tasks = _tasks(home, Path(wanted.agent.transcript).stem)
    _put_back(store, wanted, TASKS, tasks, aside.with_name(f"{aside.name}.tasks"))


def has_tasks(store: Store, wanted: Manifest) -> bool:
    """Whether the agent's task list was kept."""
    with reader(store, wanted) as opened:
        try:
            trees.find(opened, wanted, TASKS)
        except NotFound:
            return False
    return True


def _put_back(store: Store, wanted: Manifest, part: str, target: Path, aside: Path) -> None:
    if target.exists():
        shutil.move(target, aside)  # perhaps to another disk
    restoring.restore(store, wanted, target, part=part, force=True)


def _tasks(home: Path, conversation: str) -> Path:
    return home / ".claude" / "tasks" / conversation


def _inside(home: Path, path: Path) -> bool:
    """Whether a path that the agent can change leads where it says: who keeps it may read more than the agent."""
    return path.resolve() == home.resolve() / path.relative_to(home)
