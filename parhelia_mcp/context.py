"""What every verb is given: the home directory, the settings, the database, the providers, the terminal.

The only place that reads the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from parhelia_mcp import files
from parhelia_mcp.errors import LocalFault, Usage

if TYPE_CHECKING:
    from parhelia_mcp import config
    from parhelia_mcp.model import Doing, Tell
    from parhelia_mcp.providers.base import Provider
    from parhelia_mcp.store import Store


class Context:
    """One per process. Reading is lazy, so that a command pays only for what it looks at."""

    def __init__(
        self, environ: Mapping[str, str] | None = None, cwd: Path | None = None, tell: Tell | None = None
    ) -> None:
        """`tell` shows who waits for us how far something long has come; without it nobody looks."""
        self.environ = dict(os.environ if environ is None else environ)
        self.cwd = cwd or _cwd()
        self.watched = tell is not None
        self.tell = tell or _nobody
        self._providers: dict[str, Provider] = {}

    @cached_property
    def home(self) -> Path:
        """PARHELIA_HOME, made 0700. Raises LocalFault `home-unusable`."""
        named = self.environ.get("PARHELIA_HOME")
        state = self.environ.get("XDG_STATE_HOME") or str(self.user_home / ".local" / "state")
        path = Path(named).expanduser() if named else Path(state) / "parhelia"
        try:
            files.private_dir(path)
        except OSError as problem:
            raise LocalFault(
                "home-unusable", f"{path} cannot be made: {problem.strerror}.", f"mkdir -m 700 -p {path}"
            ) from None
        return path.resolve()

    @cached_property
    def user_home(self) -> Path:
        return Path(self.environ.get("HOME") or "~").expanduser()

    @cached_property
    def loaded(self) -> config.Loaded:
        from parhelia_mcp import config  # its models take longer to build than `list` takes to answer

        return config.load(self.cwd, self.environ)

    @property
    def config(self) -> config.Config:
        """The settings in force. Raises Usage `bad-config`."""
        return self.loaded.check()

    def current(self) -> Context:
        """This context, or a new one once a settings file has changed: for processes that outlive an edit."""
        from parhelia_mcp import config

        fresh = config.stamp(self.cwd, self.environ) == self.loaded.stamp
        return self if fresh else Context(self.environ, self.cwd)

    @cached_property
    def store(self) -> Store:
        from parhelia_mcp.store import Store

        return Store(self.home / "parhelia.db")

    @cached_property
    def owner(self) -> str:
        """Who sandboxes belong to: a random name kept in the home directory, in every sandbox's tags."""
        path = self.home / "owner"
        if not path.exists():
            files.replace(path, os.urandom(8).hex().encode(), durable=True)
        return path.read_text().strip()

    @property
    def in_agent(self) -> bool:
        """Whether a Claude Code started us and no person sits at a terminal."""
        return bool(self.environ.get("CLAUDECODE")) and not self.on_terminal

    @property
    def on_terminal(self) -> bool:
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def modal_account(self) -> bool:
        """Whether there is a token for Modal, where its SDK would look for one."""
        named = self.environ.get("MODAL_CONFIG_PATH")
        path = Path(named).expanduser() if named else self.user_home / ".modal.toml"
        return "MODAL_TOKEN_ID" in self.environ or path.is_file()

    def task_dir(self, task: str) -> Path:
        return self.home / "tasks" / task

    def session_dir(self, task: str, number: int) -> Path:
        return self.task_dir(task) / "sessions" / str(number)

    def provider(self, name: str) -> Provider:
        """The provider called `name`, built once."""
        if name not in self._providers:
            self._providers[name] = self._build(name)
        return self._providers[name]

    def _build(self, name: str) -> Provider:
        if name == "local":
            from parhelia_mcp.providers.local import Local

            return Local(self.home, self.environ)
        if name == "modal":
            from parhelia_mcp.providers.modal import Modal, ModalSettings

            section = self.loaded.config.modal
            return Modal(
                ModalSettings(
                    app=section.app,
                    volume=section.volume,
                    environment=self.environ.get("MODAL_ENVIRONMENT"),
                    region=section.region,
                    longest_hours=section.sandbox_hours,
                    image=section.image,
                    dockerfile=Path(section.dockerfile).expanduser() if section.dockerfile else None,
                    apt=tuple(section.apt),
                    setup=tuple(section.setup),
                    secrets=tuple(section.secrets),
                )
            )
        raise Usage("unknown-provider", f"No provider {name[:40]!r}.", "--provider local or --provider modal")


def _cwd() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise LocalFault("no-working-directory", "The current directory no longer exists.", "cd ~") from None


def _nobody(doing: Doing | None) -> None:
    """For a context that no person waits for."""
