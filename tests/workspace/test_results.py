"""What lands, where, and what is refused: hostile bundles, names in the way, work that does not fit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from parhelia_mcp import spec, workspace
from parhelia_mcp.errors import NotFound, Problem, Refused
from tests.workspace.shapes import contents, fingerprint, make, send, shell

TASK = "task-aaaaaaaa"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return make("uncommitted", tmp_path / "user")


def bring(user: Path, sent: spec.Workspace, target: Path, number: int = 1) -> workspace.Landed:
    bundle = target.parent / "result.bundle"
    assert workspace.collect(target, sent, bundle, session=f"{TASK}.{number}", message="Work of the agent")
    return workspace.land(user, sent, bundle, task=TASK, number=number)


def history(repository: Path, ref: str) -> list[str]:
    return shell(f"git log --format=%s {ref}", repository).splitlines()


def test_uncommitted_work_of_the_user_and_of_the_agent_are_two_commits(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("echo agent >>long.txt", target)
    landed = bring(user, sent, target)
    assert history(user, landed.ref) == ["Work of the agent", "Your uncommitted work", "second", "first"]
    assert landed.files_changed == 1
    assert shell(f"git show --format= --name-only {landed.ref}", user) == "long.txt\n"


def test_commits_of_the_agent_keep_their_ids(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("git commit -qam one; echo two >two; git add two; git commit -qm two", target)
    tip = shell("git rev-parse HEAD", target).strip()
    landed = bring(user, sent, target)
    assert landed.commit == tip
    assert history(user, landed.ref) == ["two", "one", "second", "first"]


def test_collecting_leaves_the_workspace_as_it_was_and_can_be_repeated(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("echo a >a; git add a; echo b >b", target)
    before = fingerprint(target, objects=True)
    first = workspace.collect(target, sent, tmp_path / "one", session=f"{TASK}.1", message="m")
    assert fingerprint(target, objects=True) == before
    workspace.land(user, sent, tmp_path / "one", task=TASK, number=1)
    shell("echo c >c", target)
    landed = bring(user, sent, target)
    assert first and landed.commit != first.commit
    assert shell(f"git show {landed.ref}:c", user) == "c\n"


def test_commits_on_another_branch_of_the_agent_are_not_lost(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("git checkout -qb side; git commit -qam aside; git checkout -q main", target)
    landed = bring(user, sent, target)
    assert "refs/parhelia/task-aaaaaaaa/1-branches/side" in landed.notes[0]
    assert history(user, f"{landed.ref}-branches/side")[0] == "aside"


@pytest.mark.parametrize(
    "damage",
    [
        "rm -rf .git",
        "rm -rf .git/objects",
        "rm .git/HEAD",
        "echo junk >.git/index",
        "rm -rf .git; git init -q",
        "git gc -q --prune=now; git reflog expire --expire=now --all; git gc -q --prune=now",
    ],
)
def test_work_comes_back_whatever_the_agent_did_to_its_repository(user: Path, tmp_path: Path, damage: str) -> None:
    sent, target = send(user, tmp_path / "away")
    shell(f"echo agent >>long.txt; {damage}", target)
    landed = bring(user, sent, target)
    assert shell(f"git show {landed.ref}:long.txt", user).endswith("agent\n")
    assert sent.head_commit
    shell(f"git merge-base --is-ancestor {sent.head_commit} {landed.ref}", user)
    assert workspace.apply(user, sent, landed.ref or "").files == ("long.txt",)


def test_the_base_survives_when_the_agent_collects_garbage(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("echo agent >>long.txt; git gc -q --prune=now", target)
    landed = bring(user, sent, target)
    assert history(user, landed.ref or "")[:2] == ["Work of the agent", "Your uncommitted work"]


def test_nothing_the_agent_configured_runs_when_its_work_is_collected(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    ran = tmp_path / "ran"
    shell(
        f"for k in core.fsmonitor filter.x.clean filter.x.process core.sshCommand gpg.program diff.external; do git config $k 'touch {ran}'; done;"
        f"git config commit.gpgsign true; echo '* filter=x' >.gitattributes; printf '#!/bin/sh\ntouch {ran}\n' >.git/hooks-x; mkdir .git/hooks;"
        "for h in post-index-change reference-transaction pre-commit; do cp .git/hooks-x .git/hooks/$h; chmod +x .git/hooks/$h; done; echo agent >>long.txt",
        target,
    )
    ran.unlink(missing_ok=True)
    landed = bring(user, sent, target)
    assert not ran.exists()
    assert landed.risky_paths == (".gitattributes",)


@pytest.mark.parametrize(
    ("obstacle", "said"),
    [
        ("git branch parhelia", "named parhelia stands in the way"),
        ("git branch parhelia/task-aaaaaaaa/deeper", "stands in the way"),
        ("git branch parhelia/task-aaaaaaaa; git worktree add -q ../tree parhelia/task-aaaaaaaa", "is checked out"),
        ("git checkout -qb parhelia/task-aaaaaaaa", "is checked out"),
        ("git branch parhelia/task-aaaaaaaa $(git commit-tree -m own HEAD^{tree})", "was left alone"),
    ],
)
def test_a_branch_in_the_way_is_left_alone_and_the_ref_is_made(
    user: Path, tmp_path: Path, obstacle: str, said: str
) -> None:
    sent, target = send(user, tmp_path / "away")
    shell(obstacle, user)
    heads = shell("git for-each-ref refs/heads", user)
    shell("echo agent >>long.txt", target)
    landed = bring(user, sent, target)
    assert landed.branch is None
    assert said in landed.notes[0]
    assert shell("git for-each-ref refs/heads", user) == heads
    assert shell(f"git show {landed.ref}:long.txt", user).endswith("agent\n")


def test_the_branch_follows_the_next_session_forward(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("git commit -qam one", target)
    bring(user, sent, target, 1)
    shell("git commit -qm two --allow-empty", target)
    second = bring(user, sent, target, 2)
    assert second.branch == f"parhelia/{TASK}"
    assert history(user, second.branch)[:2] == ["two", "one"]


def test_the_branch_goes_forward_to_a_session_that_went_on_with_uncommitted_work(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("echo one >>long.txt", target)
    bring(user, sent, target, 1)
    shell("git commit -qam kept; echo three >>long.txt", target)
    second = bring(user, sent, target, 2)
    assert (second.branch, second.notes) == (f"parhelia/{TASK}", ())
    assert bring(user, sent, target, 2).branch == second.branch, "landing again changes nothing"
    shell("echo four >>long.txt", target)
    third = bring(user, sent, target, 3)
    assert third.branch == second.branch
    assert shell(f"git show {third.branch}:long.txt", user).endswith("one\nthree\nfour\n")
    assert "kept" in history(user, third.branch)
    assert shell(f"git rev-parse {third.branch}", user).strip() == third.commit
    shell(f"git update-ref refs/heads/{third.branch} $(git commit-tree -p {third.branch} -m own HEAD^{{tree}})", user)
    shell("echo five >>long.txt", target)
    assert bring(user, sent, target, 4).branch is None


def test_files_that_would_run_something_are_named(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell(
        "mkdir -p .claude .github/workflows sub/.vscode; touch .claude/settings.json .github/workflows/ci.yml sub/.vscode/tasks.json .envrc .mcp.json plain",
        target,
    )
    landed = bring(user, sent, target)
    assert set(landed.risky_paths) == {
        ".claude/settings.json",
        ".github/workflows/ci.yml",
        "sub/.vscode/tasks.json",
        ".envrc",
        ".mcp.json",
    }


def hostile(where: Path, tree: str, also: str = "refs/parhelia/base") -> Path:
    """A bundle whose commit has the tree that `git mktree --missing` makes of `tree`."""
    store = where / "hostile"
    store.mkdir()
    shell("git init -q; echo bad >bad; git hash-object -w bad >blob; git mktree </dev/null >empty", store)
    tree = tree.replace("BLOB", (store / "blob").read_text().strip())
    (store / "tree").write_text(tree)
    commit = shell("T=$(git mktree --missing <tree); git commit-tree -m x $T", store).strip()
    names = shell(f"echo {commit}; git rev-parse {commit}^{{tree}}; cat blob", store)
    pack = subprocess.run(
        ["git", "-C", store, "pack-objects", "--stdout", "-q"], input=names.encode(), capture_output=True, check=True
    ).stdout
    bundle = where / "hostile.bundle"
    bundle.write_bytes(f"# v2 git bundle\n{commit} refs/parhelia/result\n{commit} {also}\n\n".encode() + pack)
    return bundle


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1", "..", ".g\u200cit"])
def test_a_result_with_a_path_that_git_forbids_is_refused(user: Path, tmp_path: Path, name: str) -> None:
    refuses(user, hostile(tmp_path, f"100644 blob BLOB\t{name}\n"))


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main",
        "refs/parhelia/../heads/main",
        "refs/parhelia/branches/x.lock",
        "HEAD",
        "refs/parhelia/branches/a..b",
    ],
)
def test_a_result_that_names_another_ref_is_refused(user: Path, tmp_path: Path, ref: str) -> None:
    refuses(user, hostile(tmp_path, "100644 blob BLOB\ta\n", also=ref))


def test_damaged_results_are_refused(user: Path, tmp_path: Path) -> None:
    whole = hostile(tmp_path, "100644 blob BLOB\ta\n").read_bytes()
    for number, data in enumerate(
        [b"", b"not a bundle", whole[:-30], whole[:200] + b"\xff" + whole[201:], b"# v2 git bundle\n" + b"x" * 70000]
    ):
        broken = tmp_path / f"broken{number}"
        broken.write_bytes(data)
        refuses(user, broken)


def test_a_result_without_its_objects_is_refused(user: Path, tmp_path: Path) -> None:
    refuses(user, hostile(tmp_path, "100644 blob 1234567890123456789012345678901234567890\ta\n"))


def refuses(user: Path, bundle: Path) -> None:
    before = fingerprint(user, objects=True)
    sent = spec.Workspace(
        "git", shell("git rev-parse HEAD", user).strip(), shell("git rev-parse HEAD", user).strip(), "main"
    )
    with pytest.raises(Refused) as refused:
        workspace.land(user, sent, bundle, task=TASK, number=1)
    assert refused.value.code == "bad-result"
    assert fingerprint(user, objects=True) == before


def test_a_result_whose_base_is_gone_stays_and_says_so(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("echo agent >>long.txt", target)
    shell("rm -rf .git; git init -q", user)
    with pytest.raises(NotFound) as missing:
        bring(user, sent, target)
    assert missing.value.code == "base-missing"
    assert "result.bundle" in missing.value.message


def test_apply_merges_with_what_the_user_did_meanwhile(user: Path, tmp_path: Path) -> None:
    sent, target = send(user, tmp_path / "away")
    shell("sed -i 's/^50$/fifty/' long.txt; rm src/b.txt", target)
    landed = bring(user, sent, target)
    shell("sed -i 's/^1$/one/' long.txt; echo mine >mine; git add mine; git commit -qm meanwhile", user)
    index = (user / ".git/index").read_bytes()
    assert set(workspace.apply(user, sent, landed.ref or "").files) == {"long.txt", "src/b.txt"}
    text = (user / "long.txt").read_text()
    assert text.startswith("one\n") and text.endswith("fifty\n")
    assert (user / ".git/index").read_bytes() == index


@pytest.mark.parametrize(
    "mine", ["sed -i 's/^50$/L/' long.txt", "rm long.txt", "echo other >new", "echo x >new.log", "mkdir new"]
)
def test_apply_refuses_conflicts_and_touches_nothing(user: Path, tmp_path: Path, mine: str) -> None:
    sent, target = send(user, tmp_path / "away")
    shell(
        "sed -i 's/^50$/fifty/' long.txt; echo agent >new; echo forced >new.log; git add -f new.log; git commit -qm forced",
        target,
    )
    landed = bring(user, sent, target)
    shell(f"{mine}; test -d new && touch new/inside || true", user)
    before = fingerprint(user, objects=False)
    with pytest.raises(Refused) as conflict:
        workspace.apply(user, sent, landed.ref or "")
    assert conflict.value.code == "conflicts"
    assert any(name in conflict.value.message for name in ("long.txt", "new"))
    assert fingerprint(user, objects=False) == before


def test_a_changed_submodule_comes_back_as_plain_files(tmp_path: Path) -> None:
    user = make("submodule", tmp_path / "user")
    sent, target = send(user, tmp_path / "away")
    shell("echo agent >>lib/long.txt", target)
    landed = bring(user, sent, target)
    assert shell(f"git show {landed.ref}:lib/long.txt", user).endswith("agent\n")
    before = contents(user)
    with pytest.raises(Problem):
        workspace.apply(user, sent, landed.ref or "")
    assert contents(user) == before
