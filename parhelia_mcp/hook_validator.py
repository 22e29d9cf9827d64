"""Whether the hooks of Claude Code will act as written. Claude Code itself stays silent when they do not.

    from parhelia.hook_validator import HookValidator; print(HookValidator().validate())

Standard library only, because it also runs at the start of every session. Verdicts were compared with what the real
client does for a table of configurations: tests/plugin/test_differential.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from parhelia_mcp.hook_validation import commands, dry_run, front_matter, repair, shape, together
from parhelia_mcp.hook_validation.model import Finding, Hook, Report, Source
from parhelia_mcp.hook_validation.sources import Place, load, pages, parsed, sources

__all__ = ["Finding", "HookValidator", "Report"]


class HookValidator:
    """The hooks a project gets: from settings (managed, user, project, local), enabled plugins, skills, commands, agents."""

    def __init__(
        self,
        *,
        home: Path | None = None,
        project: Path | None = None,
        environ: Mapping[str, str] | None = None,
        plugins: Iterable[Path] = (),
    ) -> None:
        environ = os.environ if environ is None else environ
        self._place = Place(home or Path.home(), project or Path.cwd(), environ, tuple(plugins))

    @property
    def user_settings(self) -> Path:
        """The file with the person's own settings, there or not."""
        return self._place.config / "settings.json"

    def validate(self, *, run: bool = False) -> Report:
        """Check every file and say what will not work. Never raises. `run` also executes each command hook once."""
        try:
            return self._validate(run)
        except (OSError, ValueError, TypeError, RecursionError) as problem:
            place = str(self._place.config)
            fault = Finding("HK100", "error", place, "", f"The check itself failed: {problem}.", f"ls -la {place}")
            return Report((fault,), (), 0)

    def _validate(self, run: bool) -> Report:
        hooks: list[Hook] = []
        findings: list[Finding] = []
        found = [(source, *load(source)) for source in sources(self._place)]
        found += [(page, *held) for page in pages(self._place) if any(held := front_matter.load(page))]
        read = [source for source, _, _ in found]
        for source, data, fault in found:
            if fault:
                findings.append(fault)
                continue
            loaded, faults = shape.check(source, data)
            hooks += loaded
            findings += faults
        for hook in hooks:
            faults = self.judge(hook)
            if run and not any(fault.severity == "error" for fault in faults):
                faults += dry_run.check(hook, self._place)
            findings += faults
        findings += together.check(hooks, self._place)
        findings += _unreviewed(hooks, self._place)
        findings += self._around(read, hooks)
        order = {"error": 0, "warning": 1, "info": 2}
        findings.sort(key=lambda finding: order[finding.severity])
        return Report(tuple(findings), tuple(str(source.path) for source in read), len(hooks))

    def judge(self, hook: Hook) -> list[Finding]:
        """What is wrong with the program one hook names."""
        return list(commands.check(hook, self._place)) if hook.command else []

    def _around(self, read: list[Source], hooks: list[Hook]) -> Iterator[Finding]:
        """What is not in the hooks' own text: policy, the client itself."""
        for source in read:
            data = parsed(source.path) if source.kind == "managed" else None
            if isinstance(data, dict) and data.get("allowManagedHooksOnly") is True:
                what = "Policy on this machine allows only its own hooks; all others do not run."
                yield Finding("HK170", "info", str(source.path), "/allowManagedHooksOnly", what, "ask who manages it")
        if hooks and not shutil.which("claude", path=self._place.environ.get("PATH")):
            what = "No `claude` is on the PATH here, so its version was not looked at."
            yield Finding("HK171", "info", hooks[0].source.path.as_posix(), "", what, "claude --version")

    def fix(self) -> list[tuple[Path, Path]]:
        """Rewrite bare paths as hooks in every file of the user and the project: `(file, backup)` for each changed."""
        own = [source for source in sources(self._place) if source.kind in shape.MENDED]
        return [(source.path, backup) for source in own if (backup := repair.fix(source))]


def _unreviewed(hooks: list[Hook], place: Place) -> Iterator[Finding]:
    """Hooks of the project, and what they run there, that git does not hold as they are: nobody has reviewed them."""
    own = [hook for hook in hooks if hook.source.kind == "project"]
    named = {hook.source.path for hook in own} | {path for hook in own for path in commands.started(hook, place)}
    for path in sorted(path for path in named if path.is_file() and path.is_relative_to(place.project)):
        listed = _git(place.project, "ls-files", "--stage", "--error-unmatch", "--", str(path))
        if listed.returncode == 1:
            what = "It is not in git: it came from somewhere else."
        elif listed.returncode == 0 and not _held(listed.stdout, path, place.project):
            what = "It was changed since it was last added to git."
        else:
            continue
        yield Finding("HK141", "warning", str(path), "", what, f"read it, then: git add {path}")


def _held(listed: bytes, path: Path, project: Path) -> bool:
    """Whether the file is the one in git's list; no filter of the repository runs."""
    now = _git(project, "hash-object", "--no-filters", "--", str(path))
    return now.returncode != 0 or now.stdout.strip() in listed.split()


def _git(project: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """What git says; code 128 where it says nothing."""
    argv = ["git", "-c", "core.fsmonitor=false", "-C", str(project), *words]
    try:
        return subprocess.run(argv, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(argv, 128, b"", b"")
