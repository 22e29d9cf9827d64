"""What came with the runner's environment: the credential, which the agent never gets, and what it does get."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping

INHERITED = (  # what of the runner's environment every agent gets; everything else stays outside
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SHELL", "USER", "LOGNAME", "TMPDIR", "TERM"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
)
KINDS = {"ANTHROPIC_API_KEY": "api-key", "CLAUDE_CODE_OAUTH_TOKEN": "oauth"}  # as the client names them
CREDENTIAL = "PARHELIA_CREDENTIAL"


def credential(options: argparse.Namespace) -> Mapping[str, str]:
    """The credential, by descriptor or from the environment, where none of it is left."""
    if options.credential_fd is not None:
        with os.fdopen(options.credential_fd, "rb") as pipe:
            return json.loads(pipe.read() or b"{}")
    if options.credential_env:
        return {**_stored_secret(), **json.loads(os.environ.pop(CREDENTIAL, "{}"))}
    return {}


def _stored_secret() -> Mapping[str, str]:
    """The credential in a secret that the provider keeps."""
    found = {kind: value for name, kind in KINDS.items() if (value := os.environ.pop(name, ""))}
    return next(({"kind": kind, "value": value} for kind, value in found.items()), {})


def inherited(secrets: Iterable[str]) -> dict[str, str]:
    """What the agent gets: the usual variables and those of the user's `secrets`; never a name of the credential's."""
    names = {*INHERITED, *secrets} - {*KINDS, CREDENTIAL}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}
