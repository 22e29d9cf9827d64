"""What every provider keeps (parhelia_mcp/providers/base.py), as tests; each provider's test file runs all of them.

A test file defines the fixture `provider` and imports everything from here. `sandbox` is a started one whose runner
waits for its spec.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parhelia_mcp import model
from parhelia_mcp.errors import Busy, NotFound, Refused, Unreachable
from parhelia_mcp.model import Sizes, new_task_id
from parhelia_mcp.providers.base import Handle, Provider, Sandbox, SandboxSpec
from parhelia_mcp.spec import Agent, CheckpointPolicy, Limits, Spec, Workspace

OWNER = "owner-of-the-contract"
PATIENCE = 30.0
SIZES = Sizes(cpu=1, memory_gb=1)


def sandbox_spec(*, task: str | None = None, number: int = 1, **changes) -> SandboxSpec:
    task = task or new_task_id()
    name = f"{task}.{number}"
    tags = {"owner": OWNER, "project": "contract", "task": task, "session": name}
    return SandboxSpec(**{"name": name, "sizes": SIZES, "timeout_s": 300.0, "tags": tags, **changes})


def task_spec(name: str, *command: str) -> Spec:
    return Spec(
        task=name.rpartition(".")[0],
        session=name,
        workspace=Workspace(kind="empty"),
        sizes={"cpu": 1, "memory_gb": 1, "gpu": None},
        limits=Limits(),
        agent=Agent(kind="command"),
        checkpoint=CheckpointPolicy(),
        command=command,
    )


def until(ready: Callable[[], object], what: str, patience: float = PATIENCE) -> object:
    """The first true answer of `ready`."""
    limit = time.monotonic() + patience
    while not (answer := ready()):
        assert time.monotonic() < limit, f"{what}: not within {patience} s"
        time.sleep(0.05)
    return answer


def deliver(sandbox: Sandbox, name: str, folder: Path, *command: str) -> None:
    task_spec(name, *command).write(folder / "spec.json")
    sandbox.put("spec.json", folder / "spec.json")


@pytest.fixture
def handle(provider: Provider) -> Iterator[Handle]:
    handle = provider.start(sandbox_spec(), deadline=PATIENCE)
    yield handle
    provider.open(handle).terminate(deadline=PATIENCE)


@pytest.fixture
def sandbox(provider: Provider, handle: Handle) -> Sandbox:
    return provider.open(handle)


@pytest.fixture(scope="module")
def shared(provider: Provider) -> Iterator[Sandbox]:
    """One living sandbox for the tests that leave it alive."""
    running = provider.open(provider.start(sandbox_spec(), deadline=PATIENCE))
    yield running
    running.terminate(deadline=PATIENCE)


def test_a_started_name_is_adopted_and_never_doubled(provider: Provider, handle: Handle) -> None:
    spec = sandbox_spec(task=handle.name.rpartition(".")[0])
    assert provider.start(spec, deadline=PATIENCE) == handle
    assert [one.handle for one in provider.list(OWNER) if one.handle.name == handle.name] == [handle]


def test_a_name_that_has_ended_is_not_started_again(provider: Provider, handle: Handle) -> None:
    provider.open(handle).terminate(deadline=PATIENCE)
    again = provider.start(sandbox_spec(task=handle.name.rpartition(".")[0]), deadline=PATIENCE)
    assert provider.open(again).poll() is not None


def test_two_starters_of_one_name_get_one_sandbox(provider: Provider) -> None:
    spec, found = sandbox_spec(), []
    threads = [threading.Thread(target=lambda: found.append(provider.start(spec, deadline=PATIENCE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    try:
        assert len(found) == 4
        assert all(one == found[0] for one in found)
    finally:
        provider.open(found[0]).terminate(deadline=PATIENCE)


def test_list_shows_running_sandboxes_of_the_owner_with_their_tags(provider: Provider, handle: Handle) -> None:
    listed = {one.handle.name: one for one in provider.list(OWNER)}
    assert listed[handle.name].tags["task"] == handle.name.rpartition(".")[0]
    assert listed[handle.name].handle == handle
    assert abs((model.moment(listed[handle.name].created_at or "") - model.now()).total_seconds()) < 2 * PATIENCE
    assert handle.name not in {one.handle.name for one in provider.list("somebody-else")}


def test_list_shows_nothing_that_has_ended(provider: Provider, handle: Handle) -> None:
    provider.open(handle).terminate(deadline=PATIENCE)
    assert handle.name not in {one.handle.name for one in provider.list(OWNER)}


def test_exec_keeps_bytes_streams_and_code(shared: Sandbox) -> None:
    script = "cat; printf 'e\\0\\377' >&2; exit 7"
    done = shared.exec(("sh", "-c", script), stdin=b"in\0\xff\n", deadline=PATIENCE)
    assert (done.code, done.stdout, done.stderr) == (7, b"in\0\xff\n", b"e\0\xff")


def test_exec_carries_megabytes_both_ways(shared: Sandbox) -> None:
    data = bytes(range(256)) * 16_384
    assert shared.exec(("cat",), stdin=data, deadline=PATIENCE).stdout == data


def test_exec_ends_at_its_deadline(shared: Sandbox) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable):
        shared.exec(("sleep", "60"), deadline=1.0)
    assert time.monotonic() - began < 5


def test_exec_in_a_dead_sandbox_is_unreachable(sandbox: Sandbox) -> None:
    sandbox.terminate(deadline=PATIENCE)
    with pytest.raises(Unreachable) as raised:
        sandbox.exec(("true",))
    assert raised.value.code == "sandbox-ended"


def test_put_makes_parents_and_replaces_whole_files(shared: Sandbox, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"0123456789" * 300_000)
    shared.put("in/deep/file", b"first", deadline=PATIENCE)
    shared.put("in/deep/file", big, deadline=PATIENCE)
    assert shared.names("in/deep") == ["file"]
    shared.get("in/deep/file", tmp_path / "back", deadline=PATIENCE)
    assert (tmp_path / "back").read_bytes() == big.read_bytes()


def test_read_pages_by_offset_and_ends_empty(shared: Sandbox) -> None:
    shared.put("log", b"abcdefgh")
    assert shared.read("log", 2, 3) == b"cde"
    assert shared.read("log", 6, 100) == b"gh"
    assert shared.read("log", 8, 100) == b""
    assert shared.read("nothing-here") == b""
    assert shared.names("no-folder") == []


def test_what_was_written_is_readable_after_the_end(sandbox: Sandbox, provider: Provider, tmp_path: Path) -> None:
    sandbox.put("kept/file", b"still here")
    sandbox.terminate(deadline=PATIENCE)
    assert sandbox.read("kept/file", 6, 4) == b"here"
    assert sandbox.names("kept") == ["file"]
    sandbox.get("kept/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"still here"
    assert sandbox.read("kept/other") == b""
    with pytest.raises(NotFound):
        sandbox.get("kept/other", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_file_is_removed_only_when_nothing_writes_any_more(sandbox: Sandbox) -> None:
    sandbox.put("kept/one", b"1", deadline=PATIENCE)
    with pytest.raises(Busy):
        sandbox.remove("kept/one", deadline=PATIENCE)
    sandbox.terminate(deadline=PATIENCE)
    sandbox.remove("kept/one", deadline=PATIENCE)
    sandbox.remove("kept/one", deadline=PATIENCE)
    assert sandbox.names("kept", deadline=PATIENCE) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../outside", "a\0b"])
def test_a_path_that_leads_out_is_refused(shared: Sandbox, tmp_path: Path, path: str) -> None:
    for attempt in (
        lambda: shared.read(path),
        lambda: shared.put(path, b"x"),
        lambda: shared.get(path, tmp_path / "got"),
    ):
        with pytest.raises(Refused) as raised:
            attempt()
        assert raised.value.code == "path-outside"


def test_a_symlink_that_leads_out_is_refused(shared: Sandbox) -> None:
    done = shared.exec(("ln", "-s", "/etc/passwd", str(shared.task_dir / "link")), deadline=PATIENCE)
    assert done.code == 0, done.stderr
    with pytest.raises(Refused):
        shared.read("link")


def test_control_reaches_the_runner_and_carries_its_refusals(shared: Sandbox) -> None:
    answer = until(lambda: _answer(shared, {"id": 7, "op": "status", "args": {}}), "an answer")
    assert (answer["id"], answer["ok"]) == (7, True)
    refused = shared.control({"id": 8, "op": "no-such-op", "args": {}}, deadline=PATIENCE)
    assert (refused["id"], refused["ok"]) == (8, False)


def _answer(sandbox: Sandbox, request: dict) -> dict | None:
    """None while the runner is not there yet."""
    try:
        return dict(sandbox.control(request, deadline=PATIENCE))
    except Unreachable:
        return None


def test_control_of_a_dead_sandbox_is_unreachable(sandbox: Sandbox) -> None:
    sandbox.terminate(deadline=PATIENCE)
    with pytest.raises(Unreachable):
        sandbox.control({"id": 1, "op": "status", "args": {}})


def test_a_dead_sandbox_has_no_tunnel(sandbox: Sandbox) -> None:
    sandbox.terminate(deadline=PATIENCE)
    with pytest.raises(Unreachable):
        sandbox.tunnel(2222)


def test_a_session_runs_a_command_and_leaves_its_journal_and_result(
    sandbox: Sandbox, handle: Handle, tmp_path: Path
) -> None:
    session = f"sessions/{handle.name.rpartition('.')[2]}"
    deliver(sandbox, handle.name, tmp_path, "sh", "-c", "echo out; echo err >&2; exit 3")
    ended = until(lambda: sandbox.poll(), "the end")
    assert ended.code == 0
    assert sandbox.poll() == ended
    assert sandbox.read(f"{session}/stdout.log") == b"out\n"
    assert sandbox.read(f"{session}/stderr.log") == b"err\n"
    assert {"events.jsonl", "result.json", "state.json"} <= set(sandbox.names(session))


def test_terminate_ends_every_process_and_may_be_repeated(sandbox: Sandbox, handle: Handle, tmp_path: Path) -> None:
    ticks = "while :; do date +%N > tick; sleep 0.05; done"
    place = sandbox.exec(("printf", "%s", str(sandbox.task_dir)), deadline=PATIENCE).stdout.decode()
    sandbox.exec(("chmod", "777", place), deadline=PATIENCE)  # the agent may be another user than the runner
    deliver(sandbox, handle.name, tmp_path, "sh", "-c", f"cd {place}; (setsid sh -c '{ticks}' &) ; {ticks}")
    until(lambda: sandbox.read("tick"), "the command's work")
    first = sandbox.terminate(deadline=PATIENCE)
    after = sandbox.read("tick")
    assert sandbox.terminate(deadline=PATIENCE) == first == sandbox.poll()
    assert first.code is None or first.code != 0
    time.sleep(0.3)
    assert sandbox.read("tick") == after


def test_a_sandbox_ends_by_itself_at_its_timeout(provider: Provider) -> None:
    sandbox = provider.open(provider.start(sandbox_spec(timeout_s=2.0), deadline=PATIENCE))
    ended = until(lambda: sandbox.poll(), "the end by timeout")
    assert ended.cause == "timeout"


def test_another_process_opens_the_handle(provider: Provider, handle: Handle) -> None:
    same = provider.open(Handle(handle.provider, handle.name, dict(handle.data)))
    assert same.poll() is None
    assert same.exec(("echo", "hello"), deadline=PATIENCE).stdout == b"hello\n"


def test_an_absent_gpu_is_refused_before_anything_starts(provider: Provider) -> None:
    spec = sandbox_spec(sizes=Sizes(cpu=1, memory_gb=1, gpu="Voodoo2"))
    with pytest.raises(Refused) as raised:
        provider.start(spec)
    assert raised.value.code == "gpu-unavailable"
    assert spec.name not in {one.handle.name for one in provider.list(OWNER)}


def test_a_provider_that_bills_says_its_prices_and_what_a_dead_sandbox_cost(provider: Provider, handle: Handle) -> None:
    provider.open(handle).terminate(deadline=PATIENCE)
    figures = (provider.rates(deadline=PATIENCE), provider.open(handle).cost(deadline=PATIENCE))
    assert [figure is not None for figure in figures] == [provider.properties.bills] * 2
