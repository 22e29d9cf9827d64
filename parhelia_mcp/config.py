"""Settings: defaults, the user's file, the project's file, `PARHELIA_*`, in that order; later wins.

A project's file belongs to whoever wrote the repository, so it may only tighten: `exclude`, lower `*_usd`, shorter
timeouts, and the region. Everything else in it is refused by name. `load` collects what is wrong instead of raising,
because `status`, `config`, `doctor` and `help` work with a broken configuration and report it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tomli
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from parhelia_mcp.errors import Usage

RESERVED = frozenset(
    {"HOME", "FAILPOINT", "SESSION", "CONTROL", "HINT", "PYTHON", "ROOT"}
)  # PARHELIA_* that are not settings


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _secret(entry: str) -> str:
    """A secret that says which of its variables the agent may see: Modal tells nobody what one holds."""
    if not re.fullmatch(r"[\w.-]+:[A-Za-z_]\w*(,[A-Za-z_]\w*)*", entry):
        raise ValueError(
            f'a secret is "NAME:KEY,KEY", with the variables that the agent may see; {entry[:80]!r} is not'
        )
    return entry


class ModalSection(Section):
    """Sessions on Modal."""

    region: str | None = None
    default_timeout_hours: float = Field(4, gt=0, le=24)
    sandbox_hours: float = Field(24, gt=0, le=24)
    app: str = "parhelia"
    volume: str = "parhelia"
    image: str | None = None
    dockerfile: str | None = None
    apt: list[str] = []
    setup: list[str] = []
    secrets: list[Annotated[str, AfterValidator(_secret)]] = []
    cpu: float = Field(4, gt=0)
    memory: float = Field(16, gt=0)


class LocalSection(Section):
    """Sessions on this machine."""

    max_sessions: int = Field(8, ge=1)
    isolate: Literal["none", "bwrap"] = "none"


class AgentSection(Section):
    """What a session runs and what it may do unasked."""

    command: str = "claude"
    model: str | None = None
    permission_mode: str | None = None
    credential: str = Field("env:ANTHROPIC_API_KEY", pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|modal-secret:.+)$")
    base_url: str = "https://api.anthropic.com"
    may: list[Literal["kill", "raise", "delete", "overwrite"]] = ["kill"]
    delegate: int = Field(0, ge=0)


class BudgetSection(Section):
    """Money, in dollars."""

    ceiling_usd: float = Field(25, ge=0, allow_inf_nan=False)
    per_task_usd: float = Field(5, ge=0, allow_inf_nan=False)
    per_day_usd: float | None = Field(None, ge=0, allow_inf_nan=False)
    warning_threshold: float = Field(0.8, ge=0, le=1)


class CheckpointSection(Section):
    """How often, how many, how long."""

    interval_minutes: float = Field(5, gt=0)
    max_per_session: int = Field(20, ge=1)
    retention_days: float = Field(7, gt=0)
    exclude: list[str] = []
    encrypt: bool = False


class NotifySection(Section):
    """What happens when a task ends, waits or hits its budget."""

    bell: bool = True
    command: str | None = None
    webhook: str | None = None


class Config(Section):
    provider: Literal["local", "modal"] = "local"
    modal: ModalSection = ModalSection()
    local: LocalSection = LocalSection()
    agent: AgentSection = AgentSection()
    budget: BudgetSection = BudgetSection()
    checkpoint: CheckpointSection = CheckpointSection()
    prices: dict[str, Any] = {"local_usd_per_hour": 0}
    notify: NotifySection = NotifySection()


class Fault(NamedTuple):
    """One thing that is wrong with a configuration file or variable."""

    source: str
    line: int | None
    what: str
    hint: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.what}"


class Loaded(NamedTuple):
    """The settings in force, where each came from, and what is wrong with the files.

    `config` holds only what is right: a faulty key keeps the value below it. `user` is the same without the
    project's file, for what a project must not decide.
    """

    config: Config
    user: Config
    sources: dict[str, str]  # "section.key" -> default | path of the file | PARHELIA_NAME
    faults: tuple[Fault, ...]
    files: tuple[Path, ...]
    stamp: tuple[object, ...]  # see `stamp`; taken before the files were read

    def check(self) -> Config:
        """The settings, or Usage `bad-config` with every fault: nothing runs on half a configuration."""
        if self.faults:
            first = self.faults[0]
            what = "; ".join(str(fault) for fault in self.faults)
            raise Usage("bad-config", f"Configuration is broken, nothing was done. {what}.", first.hint)
        return self.config


def user_file(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(base) / "parhelia" / "parhelia.toml"


def project_file(cwd: Path) -> Path | None:
    """The nearest `parhelia.toml` from `cwd` up to the top of its repository, or in `cwd` alone without one."""
    for folder in (cwd, *cwd.parents):
        if (folder / "parhelia.toml").is_file():
            return folder / "parhelia.toml"
        if (folder / ".git").exists():
            return None
    return None


def stamp(cwd: Path, environ: Mapping[str, str]) -> tuple[object, ...]:
    """A value that changes whenever a file that `load` reads is edited, replaced, made or removed."""
    named = (user_file(environ), project_file(cwd))
    return tuple((str(path), _identity(path)) for path in named if path is not None)


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(cwd: Path, environ: Mapping[str, str]) -> Loaded:
    """Read every source. Never raises for bad content: see `Loaded.faults`."""
    before = stamp(cwd, environ)
    merge = _Merge()
    files = []
    user_path = user_file(environ)
    if user_path.is_file():
        files.append(user_path)
        merge.file(user_path, project=False)
    merge.environment(environ)
    user = Config(**merge.values)
    environment_sources = {key: value for key, value in merge.sources.items() if value.startswith("PARHELIA_")}
    project_path = project_file(cwd)
    if project_path and project_path.resolve() != user_path.resolve():
        files.append(project_path)
        merge.file(project_path, project=True, fixed=environment_sources, user=user)
    return Loaded(Config(**merge.values), user, merge.sources, tuple(merge.faults), tuple(files), before)


class _Merge:
    """Accumulates sources key by key, so that one bad key costs only itself."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.faults: list[Fault] = []

    def file(
        self, path: Path, *, project: bool, fixed: Mapping[str, str] | None = None, user: Config | None = None
    ) -> None:
        text = ""
        try:
            text = path.read_bytes().decode()
            parsed = tomli.loads(text)
        except tomli.TOMLDecodeError as problem:
            line = re.search(r"line (\d+)", str(problem))
            self._fault(path, int(line[1]) if line else None, f"not TOML: {problem}", f"edit {path}")
            return
        except (OSError, UnicodeDecodeError) as problem:
            self._fault(path, None, f"cannot be read: {problem}", f"chmod 600 {path}")
            return
        for section, key, value in _flatten(parsed):
            name = f"{section}.{key}" if section else key
            line = _line(text, section, key)
            if name in (fixed or {}):
                continue
            if project and user is not None and (why := _not_for_projects(section, key, value, user)):
                self._fault(path, line, why, f"move it to {user_file({'HOME': '~'})}, or remove line {line} of {path}")
                continue
            self._set(str(path), line, section, key, value)

    def environment(self, environ: Mapping[str, str]) -> None:
        for variable, text in sorted(environ.items()):
            if not variable.startswith("PARHELIA_") or variable[9:] in RESERVED:
                continue
            section, key = _variable(variable[9:].lower())
            self._set(variable, None, section, key, _typed(section, key, text))

    def _set(self, source: str, line: int | None, section: str, key: str, value: Any) -> None:
        known = _keys(section)
        name = f"{section}.{key}" if section else key
        if known is None or (key not in known and section != "prices"):
            self._unknown(source, line, section, key)
            return
        trial = {part: dict(held) if isinstance(held, dict) else held for part, held in self.values.items()}
        if section:
            trial.setdefault(section, {})[key] = value
        else:
            trial[key] = value
        try:
            Config(**trial)
        except ValidationError as problem:
            why = problem.errors()[0]
            self._fault(source, line, f"{name} = {value!r}: {why['msg'].lower()}", f"mend {name} in {source}")
            return
        self.values = trial
        self.sources[name] = source

    def _unknown(self, source: str, line: int | None, section: str, key: str) -> None:
        import difflib

        name = f"{section}.{key}" if section else key
        names = [f"{part}.{k}" for part in Config.model_fields for k in (_keys(part) or {})] + ["provider"]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        self._fault(
            source,
            line,
            f"unknown key {name}" + (f"; did you mean {near[0]}?" if near else ""),
            f"rename it to {near[0]} or remove it" if near else "remove it; parhelia config show lists every key",
        )

    def _fault(self, source: Path | str, line: int | None, what: str, hint: str) -> None:
        self.faults.append(Fault(str(source), line, what, hint))


def _keys(section: str) -> Mapping[str, Any] | None:
    """The keys of a section (the top level for ""), or None where there is no such section."""
    if not section:
        return {"provider": None}
    field = Config.model_fields.get(section)
    if field is None or section == "provider":
        return None
    return getattr(field.annotation, "model_fields", {})


def _flatten(parsed: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    rows = []
    for key, value in parsed.items():
        if isinstance(value, dict):
            rows += [(key, inner, held) for inner, held in value.items()]
        else:
            rows.append(("", key, value))
    return rows


def _line(text: str, section: str, key: str) -> int | None:
    """The line that sets `key` in `section`, found as a person would look for it."""
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            here = header[1].strip("\"' ")
        name = re.match(r"\s*[\"']?([A-Za-z0-9_.-]+?)[\"']?\s*=", line)
        if name and (here == section and name[1] == key or not here and name[1] == f"{section}.{key}"):
            return number
    return None


def _not_for_projects(section: str, key: str, value: Any, user: Config) -> str | None:
    """Why a project's file may not say this, or None where it may."""
    if section == "checkpoint" and key == "exclude" or section == "modal" and key == "region":
        return None
    limits = {("budget", k): getattr(user.budget, k) for k in ("ceiling_usd", "per_task_usd", "per_day_usd")}
    limits["modal", "default_timeout_hours"] = user.modal.default_timeout_hours
    name = f"{section}.{key}" if section else key
    if (section, key) not in limits:
        return f"{name} is not a project's to set (it may set exclude, lower *_usd, shorter timeouts and the region)"
    held = limits[section, key]
    if held is not None and isinstance(value, int | float) and value > held:
        return f"{name} = {value} is above your own {held}; a project may only lower it"
    return None


def _variable(name: str) -> tuple[str, str]:
    for section in Config.model_fields:
        if section != "provider" and name.startswith(section + "_"):
            return section, name[len(section) + 1 :]
    return "", name


def _typed(section: str, key: str, text: str) -> Any:
    """A variable's text as the TOML value it spells where it spells one, else as a string."""
    field = (_keys(section) or {}).get(key)
    if field is not None and field.annotation in (str, str | None):
        return text
    try:
        return tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text
