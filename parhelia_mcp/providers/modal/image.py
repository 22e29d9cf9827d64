"""The image of a session: the user's base or ours, Claude Code, and Parhelia in an environment of its own."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import parhelia_mcp
from parhelia_mcp.providers.modal.settings import ModalSettings

HOME = "/opt/parhelia"
PYTHON = f"{HOME}/bin/python"
WORKSPACE = "/workspace"
USER = "agent"
USER_HOME = f"/home/{USER}"
_SYSTEM = ("ca-certificates", "curl", "git", "nodejs", "npm", "openssh-client", "procps", "ripgrep", "tmux")
_INSIDE = ("anyio", "asyncssh", "blake3", "cryptography", "httpx2", "starlette", "tilecdc", "uvicorn", "zstandard")


def build(settings: ModalSettings) -> Any:
    """The image's definition. Modal builds each layer once and keeps it; our own source is mounted at start."""
    import modal

    if settings.dockerfile is not None:
        image = modal.Image.from_dockerfile(settings.dockerfile, add_python="3.12")
    elif settings.image is not None:
        image = modal.Image.from_registry(settings.image, add_python="3.12")
    else:
        image = modal.Image.debian_slim("3.12")
    image = image.apt_install(*_SYSTEM, *settings.apt)
    site = f"$({PYTHON} -c 'import site; print(site.getsitepackages()[0])')"
    image = image.run_commands(
        f"npm install -g @anthropic-ai/claude-code@{settings.claude_version}",
        f"id -u {USER} >/dev/null 2>&1 || useradd --create-home --home-dir {USER_HOME} --shell /bin/bash {USER}",
        f"mkdir -p {WORKSPACE} {HOME}/src && chown {USER} {WORKSPACE}",
        f"python3 -m venv {HOME} && {HOME}/bin/pip install --no-cache-dir {' '.join(_pins())}",
        f"echo {HOME}/src > {site}/parhelia.pth",
    )
    if settings.setup:
        image = image.run_commands(*settings.setup)
    return _with_source(image)


def of_snapshot(image_id: str) -> Any:
    """The image that a snapshot is, with the source as it is now."""
    import modal

    return _with_source(modal.Image.from_id(image_id))


def _with_source(image: Any) -> Any:
    source = Path(parhelia_mcp.__file__).parent
    return image.add_local_dir(source, f"{HOME}/src/parhelia_mcp", ignore=["**/__pycache__", "**/*.pyc"])


def _pins() -> list[str]:
    """The packages that `inside` imports, at the versions that run here."""
    return [f"{name}=={metadata.version(name)}" for name in _INSIDE]
