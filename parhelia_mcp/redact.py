"""Secrets taken out of text that leaves this machine: known values, and what looks like a key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

GONE = "[redacted]"
SHORTEST = 8  # a shorter value is no secret worth the damage of replacing it everywhere
_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|npm_|pypi-|hf_|dop_v1_)[A-Za-z0-9_-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\b(?:ak|as)-[A-Za-z0-9]{16,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
    re.DOTALL,
)
_SAID = re.compile(
    r"(?i)((?:[a-z0-9_-]*(?:api[_-]?key|token|secret|passw(?:or)?d|credential)[a-z0-9_-]*)[\"']?\s*[:=]\s*[\"']?|\bbearer\s+|\bbasic\s+|://[^/\s:@]*:)"
    r"([^\s\"'@,;}]{8,})"
)


def known(environ: Mapping[str, str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Every value that a name in the environment calls a secret, and `more`; the longest first."""
    values = {value.strip() for name, value in environ.items() if _NAMES.search(name)} | {one.strip() for one in more}
    return tuple(sorted((one for one in values if len(one) >= SHORTEST), key=len, reverse=True))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without the secrets and without anything that has the shape of one."""
    for secret in secrets:
        text = text.replace(secret, GONE)
    return _SAID.sub(lambda match: match[1] + GONE, _SHAPES.sub(GONE, text))
