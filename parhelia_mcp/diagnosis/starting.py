"""Why a session has not started, or never will."""

from __future__ import annotations

from parhelia_mcp.diagnosis.rule import Rule, be, failed, over, says, state, there

_PENDING = state("pending", "starting")
_UNSTARTED = be("reason", "start-failed", "start-timeout")


def _refused(cause: str, pattern: str, what: str, fix: str, next: str, action: str | None = None) -> tuple[Rule, Rule]:
    """One reason of a provider, as a session that still tries says it, and as one that has given up."""
    return (
        Rule(cause, "certain", (says("why_unobserved", pattern), _PENDING), what, fix, next, None),
        Rule(cause, "certain", (says("detail", pattern), _UNSTARTED), what, fix, next, action),
    )


RULES = (
    *_refused(
        "token-rejected",
        r"\[provider-auth\]",
        "{provider} does not accept the token of this account.",
        "get a new token, then start again",
        "modal token set && parhelia recover {task} --action restart",
    ),
    *_refused(
        "provider-permission",
        r"\[provider-permission\]",
        "{provider} does not allow this to the account in use.",
        "check which profile is in use, or ask its owner",
        "modal profile current",
    ),
    *_refused(
        "quota",
        r"quota is used up: [^\[]*(?:quota|limit|exceed)",
        "A quota of the account at {provider} is used up.",
        "end what is not needed, or raise the quota",
        "parhelia list --status active",
    ),
    Rule(
        "gpu-scarce",
        "likely",
        (says("why_unobserved", r"\[provider-capacity\]|scarce"), there("gpu"), _PENDING),
        "No {gpu} is free at {provider} now; it keeps trying.",
        "another GPU, or patience; recover takes the next one",
        "parhelia recover {task} --yes",
        "restart",
    ),
    Rule(
        "gpu-scarce",
        "likely",
        (says("why_unobserved", "has had no"), there("gpu"), over("age_s", 120), _PENDING),
        "{why_unobserved}",
        "another GPU, or patience: a queue may take 20 minutes; recover takes the next one",
        "parhelia recover {task} --yes",
        "restart",
    ),
    Rule(
        "gpu-scarce",
        "likely",
        (says("detail", r"\[provider-capacity\]|\[gpu-unavailable\]|has had no|scarce"), there("gpu"), _UNSTARTED),
        "No {gpu} could be had at {provider}.",
        "another GPU; recover takes the next one",
        "parhelia recover {task} --yes",
        "restart",
    ),
    *_refused(
        "no-capacity",
        r"\[provider-capacity\]",
        "{provider} has no room for a sandbox of this size now.",
        "a smaller size, another region, or patience",
        "parhelia recover {task} --yes",
        "restart",
    ),
    *_refused(
        "region-unavailable",
        r"\bregion\b(?!.*\[provider-capacity\])",
        "{provider} cannot start this in region {region}.",
        "another region, or none: recover leaves the choice to the provider",
        "parhelia recover {task} --yes",
        "restart",
    ),
    *_refused(
        "image-build-failed",
        r"\[image-build\]",
        "The image of the sandbox could not be built: {detail}",
        "mend dockerfile, apt and setup under [modal] (parhelia config show says which file), then start again",
        "parhelia recover {task} --action restart",
    ),
    *_refused(
        "credential-missing",
        r"\[credential-(?:missing|exposed)\]",
        "The agent's credential is not to be had here.",
        "set it, then start again",
        "parhelia doctor && parhelia recover {task} --action restart",
    ),
    *_refused(
        "provider-unreachable",
        r"\[(?:provider-unreachable|provider-timeout|provider-fault)\]|could not be reached",
        "{provider} does not answer, so the start was tried again and again.",
        "wait, or run it here: --provider local",
        "parhelia status",
        "restart",
    ),
    Rule(
        "waiting-for-a-place",
        "certain",
        (says("why_unobserved", "waits for a free place"), _PENDING),
        "Every place for a local session is taken: {why_unobserved}.",
        "wait, end another session, or raise max_sessions under [local]",
        "parhelia list --status active",
    ),
    Rule(
        "never-ready",
        "certain",
        (be("reason", "start-timeout"), there("has_sandbox")),
        "The sandbox started and its runner gave no sign of life: {detail}",
        "start again; when it repeats, look at the image and send a report",
        "parhelia recover {task} --action restart",
        "restart",
    ),
    Rule(
        "start-timeout",
        "certain",
        (be("reason", "start-timeout"),),
        "No sandbox came in time: {detail}",
        "start again, or elsewhere: --provider, --region, another size",
        "parhelia recover {task} --action restart",
        "restart",
    ),
    Rule(
        "bad-entrypoint",
        "certain",
        (be("exit_code", 126, 127), state("failed")),
        "What the session was to run could not be run: {detail}",
        "check the command's name, path and mode; it is looked for in the session's own PATH",
        'parhelia logs {task} --grep "entrypoint|error|not found|cannot be run"',
    ),
    Rule(
        "bad-entrypoint",
        "certain",
        (be("reason", "start-failed"), says("detail", "could not be started|never started|no such file")),
        "The session's program did not start: {detail}",
        "check the log of the entrypoint",
        'parhelia logs {task} --grep "entrypoint|error"',
    ),
    Rule(
        "start-failed",
        "certain",
        (be("reason", "start-failed"),),
        "The session did not start: {detail}",
        "mend what it says, then start again",
        "parhelia recover {task} --action restart",
        "restart",
    ),
    Rule(
        "never-ready",
        "likely",
        (over("started_s", 60), state("starting"), be("sandbox", "runs"), failed("heartbeat_age_s")),
        "The sandbox runs for {started_s} s and its runner has given no sign of life.",
        "wait until 5 minutes are over, or start again",
        "parhelia task show {task}",
    ),
    Rule(
        "still-starting",
        "certain",
        (_PENDING,),
        "The session is {state} for {age_s} s; nothing speaks against it.",
        "wait for running",
        "parhelia logs {task} --follow",
        None,
        well=True,
    ),
)
