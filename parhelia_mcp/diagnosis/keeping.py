"""What stands around every session: the settings, checkpoints, hooks, the port; and that nothing is wrong."""

from __future__ import annotations

from parhelia_mcp.diagnosis.rule import Rule, be, over, says, state, there, under

_ENDED = state("failed", "lost", "killed", "completed")

FIRST = (
    Rule(
        "configuration-broken",
        "certain",
        (there("config_faults"), state("failed", "lost", "pending")),
        "The configuration is broken, so nothing can be started: {config_faults}",
        "mend it",
        "parhelia config show",
    ),
    Rule(
        "workspace-conflict",
        "certain",
        (says("detail", r"\[target-not-empty\]|\[bad-target\]"), _ENDED),
        "The files could not be laid out because something is there already: {detail}",
        "name a new directory, or keep and replace what is there",
        "parhelia resume {task} --target DIR --force",
    ),
    Rule(
        "checkpoint-corrupted",
        "certain",
        (over("damaged_checkpoints", 0), there("whole_checkpoint"), state("failed", "lost")),
        "It ended in {reason}, and the newest checkpoint is damaged; {whole_checkpoint} is the newest that is whole.",
        "go on from that one",
        "parhelia resume {task} --checkpoint-id {whole_checkpoint}",
        "resume",
    ),
    Rule(
        "checkpoint-corrupted",
        "certain",
        (over("damaged_checkpoints", 0), state("failed", "lost")),
        "It ended in {reason}, and none of its {damaged_checkpoints} checkpoints is whole.",
        "start it again from the files it was given",
        "parhelia recover {task} --action restart",
        "restart",
    ),
    Rule(
        "checkpoint-expired",
        "likely",
        (be("checkpoints", 0), over("checkpoints_recorded", 0), state("failed", "lost"), over("age_s", 7 * 86400)),
        "Its checkpoints are older than they are kept, and gone.",
        "start it again from the files it was given",
        "parhelia recover {task} --action restart",
        "restart",
    ),
    Rule(
        "checkpoint-missing",
        "likely",
        (be("checkpoints", 0), over("checkpoints_recorded", 0), state("failed", "lost")),
        "It took {checkpoints_recorded} checkpoints and none is there: somebody removed them.",
        "start it again from the files it was given",
        "parhelia recover {task} --action restart",
        "restart",
    ),
)
LAST = (
    Rule(
        "over-budget",
        "certain",
        (there("over_ceiling"),),
        "More is spent than the ceiling allows; nothing new starts.",
        "raise the ceiling, if that is right",
        "parhelia budget show",
    ),
    Rule(
        "disk-full-of-checkpoints",
        "likely",
        (under("home_free_mb", 512), over("checkpoints_mb", 500)),
        "The disk of Parhelia's files has {home_free_mb} MiB left, and {checkpoints_mb} MB of it are checkpoints.",
        "delete old ones",
        "parhelia checkpoint delete --older-than 7d",
    ),
    Rule(
        "hooks-broken",
        "certain",
        (there("hooks_broken"), state("running", "waiting")),
        "The session works, but a hook on this machine will not act as written: {hooks_broken}",
        "mend the hook",
        "parhelia hooks validate",
    ),
    Rule(
        "port-taken",
        "possible",
        (be("port_2222", "taken"), state("running", "waiting")),
        "The session works. Port 2222 of this machine is in use, so attach opens another and says which.",
        "nothing has to be done; lsof -i :2222 says who has it",
        "parhelia attach {task}",
        None,
        well=True,
    ),
    Rule(
        "no-checkpoint-yet",
        "certain",
        (be("checkpoints", 0), state("running", "waiting"), over("started_s", 900)),
        "The session works, and nothing of it has been kept yet.",
        "keep it now",
        "parhelia checkpoint create {task}",
        None,
        well=True,
    ),
    Rule(
        "healthy",
        "certain",
        (state("running", "waiting"),),
        "Nothing that was asked speaks against it.",
        "nothing",
        "parhelia logs {task} --follow",
        None,
        well=True,
    ),
)
