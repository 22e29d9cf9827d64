"""Ask before a call that can lose a session's work: kill without a checkpoint, delete, cleanup, overwrite."""

import posix
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import call
from state import home

ASKS = {
    "checkpoint delete": "deletes checkpoints. What they hold cannot be brought back.",
    "checkpoint gc": "removes stored data that no checkpoint needs.",
    "cleanup": "ends sandboxes that no session owns. Work in them that has no checkpoint is lost.",
    "resume --force": "writes over a directory that is not empty (it is saved first).",
    "checkpoint restore": "writes over a directory that is not empty (it is saved first).",
    "pull --apply": "changes the files in this working tree.",
}
ID = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


def checkpointed(task):
    """Whether the task behind an exact id has a checkpoint on this machine."""
    task = task.partition(".")[0]
    task = task if task.startswith("task-") else "task-" + task
    if len(task) != 13 or not ID.issuperset(task[5:]):
        return False
    try:
        names = posix.listdir(home() + b"/tasks/" + task.encode() + b"/checkpoints/manifests")
    except OSError:
        return False
    return any(name.endswith(b".json") and not name.startswith(b".") for name in names)


def reason(verb, arguments):
    if verb == "recover":
        verb = "recover " + (arguments.get("action") or "")
    if verb in ("session kill", "task kill", "recover kill"):
        task = str((arguments.get("words") or [arguments.get("id") or ""])[0])
        if checkpointed(task):
            return None
        return (
            f"ends {task or 'it'}, which has no checkpoint on this machine: files it has not handed back may be lost."
        )
    if verb == "cleanup":
        return ASKS[verb] if "terminate" in arguments else None
    if verb == "checkpoint restore":
        return ASKS[verb] if arguments.get("overwrite") else None
    if verb in ("resume", "pull"):
        verb = next((key for key in ASKS if key.startswith(verb + " ") and key.rpartition("--")[2] in arguments), verb)
    return ASKS.get(verb)


def main():
    for verb, arguments in call.parhelia(call.read()):
        why = reason(verb, arguments)
        if why:
            call.answer("ask", f"Parhelia: this {why} To keep a session first: parhelia checkpoint create ID")
            break
    call.leave()


main()
