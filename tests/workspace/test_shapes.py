"""Every shape of repository goes in exactly, and comes back as a ref, with the user's own state as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from parhelia_mcp import workspace
from tests.workspace.shapes import SHAPES, contents, fingerprint, make, send, shell

HALF_WAY = {  # conflicts and intents in the index become changes of the files
    "rebase in progress",
    "merge in progress",
    "intent to add",
}
PLAIN = {"submodule", "nested repository", "nested repository without a commit"}  # travel as plain files
WINDOWS = {"line ends", "autocrlf"}  # text comes back with the line ends the user asked git for
HEAD = "git symbolic-ref HEAD || git rev-parse HEAD"
COMPLETE = {"sparse", "replaced commit"}  # what was left out of the user's checkout is there in the session


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_workspace_goes_in_exactly_and_comes_back_as_a_ref(shape: str, tmp_path: Path) -> None:
    repository = make(shape, tmp_path / "user")
    mine = contents(repository)
    asked = "git --no-optional-locks status --porcelain -z --untracked-files=all --ignore-submodules"
    status, head = shell(asked, repository), shell(HEAD, repository)
    (repository.parent / "ran").unlink(missing_ok=True)  # by the questions above
    before = fingerprint(repository, objects=True)
    sent, target = send(repository, tmp_path / "away")
    assert fingerprint(repository, objects=True) == before, "packing changes nothing at all"
    if shape not in COMPLETE:
        assert contents(target) == mine
    if shape not in HALF_WAY | PLAIN | COMPLETE:
        assert shell(asked, target) == status
    assert shell(HEAD, target) == head

    bundle = tmp_path / "result.bundle"
    assert workspace.collect(target, sent, bundle, session="task-aaaaaaaa.1", message="Work") is None, "nothing yet"
    shell(
        "echo agent >by-agent.txt; git add by-agent.txt; git commit -qm mine -- by-agent.txt || git commit -qam mine",
        target,
    )
    shell("echo left >left.txt", target)
    collected = workspace.collect(target, sent, bundle, session="task-aaaaaaaa.1", message="Work")
    assert collected
    before = fingerprint(repository, objects=False)
    landed = workspace.land(repository, sent, bundle, task="task-aaaaaaaa", number=1)
    assert fingerprint(repository, objects=False) == before, "only our own refs are new"
    assert not (repository.parent / "ran").exists(), "nothing the repository names was run"
    assert landed.ref == "refs/parhelia/task-aaaaaaaa/1"
    assert landed.branch == "parhelia/task-aaaaaaaa"
    assert shell(f"git show {landed.ref}:left.txt", repository) == "left\n"
    if sent.head_commit:
        shell(f"git merge-base --is-ancestor {sent.head_commit} {landed.ref}", repository)
    applied = workspace.apply(repository, sent, landed.ref)
    assert set(applied.files) == {"by-agent.txt", "left.txt"}
    end = "\r\n" if shape in WINDOWS else "\n"
    brought = {"by-agent.txt": f"0 {f'agent{end}'.encode()!r}", "left.txt": f"0 {f'left{end}'.encode()!r}"}
    assert contents(repository) == mine | brought
