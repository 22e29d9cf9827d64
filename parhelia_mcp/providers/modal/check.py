"""What a session on Modal needs, part by part, for `doctor`: asks, starts and makes nothing.

python -m parhelia_mcp.providers.modal.check     prints a JSON list of rows: [name, state, what, fix]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from parhelia_mcp.context import Context
from parhelia_mcp.errors import NotFound, Problem, Refused
from parhelia_mcp.providers.modal import bridge
from parhelia_mcp.providers.modal.provider import Modal
from parhelia_mcp.providers.modal.settings import ModalSettings

ASK_S = 10.0  # for each question; importing the SDK takes seconds of the first
SDK = (1, 6)  # the versions that this was written for
INSTALL = "pip install 'modal>=1.6,<1.7'"


class Row(NamedTuple):
    """`state` is ok, warning or broken; `fix` is the command that mends it."""

    name: str
    state: str
    what: str
    fix: str = ""


def check(settings: ModalSettings, secrets: tuple[str, ...] = (), deadline: float = ASK_S) -> list[Row]:
    """A row a part. `secrets` are looked for beside those of the settings. Where Modal is not reached, what depends on it is left out."""
    installed = _installed()
    offline = [*_image(settings), *_region(settings)]
    if installed.state == "broken":
        return [installed, *offline]
    provider = Modal(settings)
    reached = list(_reached(provider, deadline))
    if any(row.state == "broken" for row in reached):
        return [installed, *reached, *offline]
    named = dict.fromkeys((*settings.secrets, *secrets))
    found = [_secret(provider, entry, deadline) for entry in named]
    return [installed, *reached, *found, _volume(provider, deadline), *offline]


def _installed() -> Row:
    try:
        version = metadata.version("modal")
    except metadata.PackageNotFoundError:
        return Row("modal", "broken", "the Modal SDK is not installed", INSTALL)
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) != SDK:
        return Row("modal", "warning", f"Modal SDK {version}; this Parhelia was tried with 1.6", INSTALL)
    return Row("modal", "ok", f"Modal SDK {version}")


def _reached(provider: Modal, deadline: float) -> Iterator[Row]:
    """Token and connection by one question: for our app, which the first task makes."""
    app = provider.settings.app
    try:
        bridge.call(lambda: provider.find_app(), deadline, "answer")
    except NotFound:
        yield from _welcome(f"app {app!r} is not there yet: the first task makes it")
    except Refused as problem:
        yield Row("modal-token", "broken", problem.message, problem.hint)
    except Problem as problem:
        yield Row("modal-reachable", "broken", problem.message, problem.hint)
    else:
        yield from _welcome(f"app {app!r}")


def _welcome(what: str) -> Iterator[Row]:
    yield Row("modal-token", "ok", "Modal accepts the token")
    yield Row("modal-reachable", "ok", what)


def _secret(provider: Modal, entry: str, deadline: float) -> Row:
    name = f"modal-secret {entry.partition(':')[0]}"
    try:
        bridge.call(lambda: provider.secret(entry), deadline, f"look for secret {entry}")
    except Problem as problem:
        return Row(name, "broken", problem.message, problem.hint)
    keys = entry.partition(":")[2]
    return Row(name, "ok", f"there, with {keys}" if keys else "there")


def _volume(provider: Modal, deadline: float) -> Row:
    name = provider.settings.volume
    try:
        bridge.call(lambda: provider.volume(name, make=False).hydrate.aio(), deadline, "look for the volume")
    except NotFound:
        return Row("modal-volume", "ok", f"volume {name!r} is not there yet: the first task makes it")
    except Problem as problem:
        return Row("modal-volume", "broken", problem.message, problem.hint)
    return Row("modal-volume", "ok", f"volume {name!r}")


def _image(settings: ModalSettings) -> Iterator[Row]:
    if settings.dockerfile is not None and not settings.dockerfile.is_file():
        what = f"{settings.dockerfile} is not there"
        yield Row("modal-image", "broken", what, "name another file: [modal] dockerfile")
        return
    base = settings.dockerfile or settings.image or "Debian with Python 3.12"
    yield Row(
        "modal-image", "ok", f"{base}, Claude Code {settings.claude_version}; the first task builds it, in minutes"
    )


def _region(settings: ModalSettings) -> Iterator[Row]:
    if settings.region:
        yield Row("modal-region", "ok", f"{settings.region}; Modal says at a task's start whether it has it")
    else:
        yield Row("modal-region", "ok", "any")


def main() -> None:
    ctx = Context()
    how, _, name = ctx.loaded.config.agent.credential.partition(":")
    provider = ctx.provider("modal")
    rows = check(provider.settings, (name,) if how == "modal-secret" else ())
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main()
