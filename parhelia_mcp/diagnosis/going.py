"""What keeps a session that lives from going on.

Three that look alike from outside are told apart by who still moves: a hung agent under a runner that beats, a frozen
container whose provider answers, and a partition behind which nothing can be asked.
"""

from __future__ import annotations

from parhelia_mcp.diagnosis.rule import Rule, be, failed, over, says, state, there, under

STALE_S = 15.0  # a heartbeat comes every 2 s
QUIET_S = 600.0
_LIVE = state("running", "waiting", "starting")
_FRESH = under("heartbeat_age_s", STALE_S)
_STALE = over("heartbeat_age_s", STALE_S)
_RUNS = be("sandbox", "runs", telling=False)
_RECOVER = "parhelia recover {task} --yes"

RULES = (
    Rule(
        "kill-unconfirmed",
        "certain",
        (there("kill_requested_at"), _LIVE),
        "Its end was asked for at {kill_requested_at} and is not proved yet: it may still cost.",
        "it is asked again until it is proved",
        "parhelia session kill {task}",
    ),
    Rule(
        "partition",
        "likely",
        (failed("sandbox"), _LIVE),
        "{provider} does not answer about this sandbox. It may be well and is not reached from here.",
        "wait and try again; its limits hold it meanwhile",
        "sleep 60; parhelia status {task}",
    ),
    Rule(
        "partition",
        "likely",
        (failed("heartbeat_age_s"), _RUNS, failed("control"), _LIVE),
        "{provider} says that the sandbox runs, and nothing in it can be reached from here.",
        "wait and try again",
        "sleep 60; parhelia status {task}",
    ),
    Rule(
        "container-frozen",
        "certain",
        (_STALE, be("runner_process", "stopped"), _LIVE),
        "Every process of the sandbox is held: its runner too has not beaten for {heartbeat_age_s} s, and the sandbox itself answers.",
        "end it and go on from the newest checkpoint",
        _RECOVER,
        "resume",
    ),
    Rule(
        "container-frozen",
        "likely",
        (_STALE, _RUNS, failed("agent_process"), _LIVE),
        "{provider} says that it runs, but its runner has not beaten for {heartbeat_age_s} s and no program starts in it.",
        "end it and go on from the newest checkpoint",
        _RECOVER,
        "resume",
    ),
    Rule(
        "runner-dead",
        "certain",
        (_STALE, be("runner_process", "gone"), _LIVE),
        "The runner is gone and its sandbox is still there.",
        "end it and go on from the newest checkpoint",
        _RECOVER,
        "resume",
    ),
    Rule(
        "container-frozen",
        "likely",
        (_STALE, _RUNS, failed("control"), _LIVE),
        "The sandbox runs, but its runner has not beaten for {heartbeat_age_s} s and does not answer.",
        "end it and go on from the newest checkpoint",
        _RECOVER,
        "resume",
    ),
    Rule(
        "partition",
        "likely",
        (failed("control"), _FRESH, _LIVE),
        "The runner beats, but its control socket is not reached from here: it goes on by itself.",
        "wait and try again; it cannot be told anything meanwhile",
        "sleep 60; parhelia status {task}",
    ),
    Rule(
        "waiting-for-a-person",
        "certain",
        (state("waiting"), there("waiting_for")),
        "It waits for your answer: {waiting_for}",
        "allow or deny it",
        "parhelia send {task} allow",
    ),
    Rule(
        "agent-hung",
        "certain",
        (be("agent_process", "stopped"), _FRESH, state("running")),
        "The agent's process is held by a signal; its runner beats as it should.",
        "end the agent and go on from the newest checkpoint; the work so far is kept first",
        _RECOVER,
        "resume",
    ),
    Rule(
        "api-key-rejected",
        "certain",
        (says("api_says", r"401|403|authentication"), state("running")),
        "The API does not accept the agent's key: {api_says}",
        "put the right key where [agent] credential points, then go on",
        "parhelia doctor",
    ),
    Rule(
        "rate-limited",
        "certain",
        (says("api_says", r"429|rate.?limit"), state("running")),
        "The API limits the rate of requests: {api_says}. The agent tries again by itself.",
        "wait; run fewer sessions at once",
        "parhelia logs {task} --follow",
    ),
    Rule(
        "api-overloaded",
        "certain",
        (says("api_says", r"5\d\d|overloaded|connection"), state("running")),
        "The API does not answer as it should: {api_says}. The agent tries again by itself.",
        "wait",
        "parhelia logs {task} --follow",
    ),
    Rule(
        "disk-full",
        "likely",
        (under("disk_free_mb", 16), _LIVE),
        "The disk of the workspace has {disk_free_mb} MiB left.",
        "make room there, or checkpoints and results cannot be written",
        "parhelia checkpoint list --older-than 7d",
    ),
    Rule(
        "agent-hung",
        "likely",
        (
            over("quiet_s", QUIET_S),
            be("agent", "claude"),
            under("agent_cpu", 0.01),
            under("requests_open", 1),
            _FRESH,
            state("running"),
        ),
        "The agent has said nothing for {quiet_s} s, uses no CPU and asks the API nothing.",
        "look at its terminal, or end it and go on from the newest checkpoint",
        _RECOVER,
        "resume",
    ),
    Rule(
        "gpu-idle",
        "likely",
        (under("gpu_use_percent", 3), over("started_s", 600), state("running")),
        "The {gpu} is used at {gpu_use_percent} % and costs all the same (${usd_per_hour} an hour).",
        "go on without a GPU: end it and resume it smaller",
        "parhelia session kill {task} && parhelia resume {task} --gpu none",
    ),
    Rule(
        "forgotten-session",
        "likely",
        (over("quiet_s", 3600), over("usd_per_hour", 0), under("agent_cpu", 0.01), _LIVE),
        "Nothing has happened for {quiet_s} s and it costs ${usd_per_hour} an hour.",
        "end it; its work is kept",
        "parhelia session kill {task}",
    ),
    Rule(
        "forgotten-session",
        "likely",
        (over("quiet_s", 3600), over("usd_per_hour", 0), state("waiting")),
        "It has waited for an answer for {quiet_s} s and costs ${usd_per_hour} an hour.",
        "answer it, or end it; its work is kept",
        "parhelia session kill {task}",
    ),
    Rule(
        "host-key-changed",
        "certain",
        (be("ssh", "other key"), state("running", "waiting")),
        "What answers at the session's ssh port does not have the key that was made for it: nothing was sent to it.",
        "do not attach; end the session and go on from the newest checkpoint in a new one",
        _RECOVER,
        "resume",
    ),
    Rule(
        "tmux-gone",
        "certain",
        (be("tmux", "gone"), _FRESH, state("running", "waiting")),
        "The terminal of the session is gone; the agent does not need it and works on.",
        "read along by the log; the next session has a terminal again",
        "parhelia logs {task} --follow",
    ),
    Rule(
        "ssh-refused",
        "certain",
        (be("ssh", "refused"), over("started_s", 20), state("running", "waiting")),
        "The session works, but its ssh server does not listen.",
        "read along by the log; the next session has a server again",
        "parhelia logs {task} --follow",
    ),
    Rule(
        "ssh-reset",
        "likely",
        (be("ssh", "reset", "silent"), state("running", "waiting")),
        "The session works, but the way to its ssh server is cut before it answers.",
        "try again in a moment; the session goes on",
        "parhelia attach {task} --verbose",
    ),
)
