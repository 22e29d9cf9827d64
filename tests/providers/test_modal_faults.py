"""Modal misbehaving in every way that the loopback can: no call hangs, nothing is doubled, nothing is invented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from parhelia_mcp.errors import Problem, Refused, Unreachable
from parhelia_mcp.model import Sizes
from parhelia_mcp.providers.base import Handle
from parhelia_mcp.providers.modal import Modal, ModalSettings
from tests.modal_loopback.client import Loopback
from tests.providers.contract import PATIENCE, sandbox_spec, until

GPU = Sizes(cpu=1, memory_gb=1, gpu="A10G")
STATUSES = {  # what a status of the control plane becomes on a call that is not retried for long
    "UNAUTHENTICATED": (Refused, "provider-auth"),
    "PERMISSION_DENIED": (Refused, "provider-permission"),
    "INVALID_ARGUMENT": (Refused, "provider-refused"),
    "OUT_OF_RANGE": (Refused, "provider-refused"),
    "FAILED_PRECONDITION": (Unreachable, "provider-conflict"),
    "RESOURCE_EXHAUSTED": (Unreachable, "provider-capacity"),
    "UNIMPLEMENTED": (Problem, "provider-version"),
    "DATA_LOSS": (Problem, "provider-data-loss"),
    "UNAVAILABLE": (Unreachable, "provider-unreachable"),
    "INTERNAL": (Unreachable, "provider-fault"),
}


@pytest.fixture
def started(modal: Modal, loopback: Loopback) -> Iterator[Callable[..., Handle]]:
    """Starts sandboxes, and ends them after the test."""
    handles: list[Handle] = []

    def start(**changes) -> Handle:
        handles.append(modal.start(sandbox_spec(**changes), deadline=PATIENCE))
        return handles[-1]

    yield start
    loopback.faults()
    for handle in handles:
        modal.open(handle).terminate(deadline=PATIENCE)


def named(loopback: Loopback, name: str) -> list[dict]:
    return [one for one in loopback.record()["sandboxes"] if one["name"] == name]


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_a_status_of_the_control_plane_has_its_own_error(modal: Modal, loopback: Loopback, status: str) -> None:
    loopback.faults({"rpc": "SandboxListV2", "action": "status", "status": status, "message": "because"})
    kind, code = STATUSES[status]
    with pytest.raises(kind) as raised:
        modal.list("anybody", deadline=PATIENCE)
    assert raised.value.code == code
    assert "because" in raised.value.message


@pytest.mark.parametrize("rpc", ["SandboxListV2", "SandboxTagsGetV2"])
def test_a_list_that_fails_is_not_an_empty_list(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle], rpc: str
) -> None:
    handle = started()
    loopback.faults({"rpc": rpc, "action": "status", "status": "UNAVAILABLE", "skip": 0})
    with pytest.raises(Unreachable):
        modal.list("owner-of-the-contract", deadline=PATIENCE)
    loopback.faults()
    assert handle in [one.handle for one in modal.list("owner-of-the-contract")]


@pytest.mark.parametrize("how", [{"status": "UNAVAILABLE"}, {"status": "INTERNAL"}, {}])
def test_a_create_whose_answer_is_lost_is_found_by_name(modal: Modal, loopback: Loopback, how: dict) -> None:
    loopback.faults({"rpc": "SandboxCreateV2", "action": "lose", "times": 1, **how})
    spec = sandbox_spec()
    try:
        handle = modal.start(spec, deadline=3.0)
    except Unreachable as problem:
        assert problem.code == "provider-pending"
        handle = Modal(ModalSettings()).start(spec, deadline=PATIENCE)
    assert [one["id"] for one in named(loopback, spec.name)] == [handle.data["sandbox_id"]]
    modal.open(handle).terminate(deadline=PATIENCE)


def test_a_create_that_fails_leaves_nothing_and_can_be_repeated(modal: Modal, loopback: Loopback) -> None:
    loopback.faults({"rpc": "SandboxCreateV2", "action": "status", "status": "UNAVAILABLE", "times": 8})
    spec = sandbox_spec()
    with pytest.raises(Unreachable):
        modal.start(spec, deadline=PATIENCE)
    loopback.faults()
    assert named(loopback, spec.name) == []
    handle = modal.start(spec, deadline=PATIENCE)
    assert len(named(loopback, spec.name)) == 1
    modal.open(handle).terminate(deadline=PATIENCE)


@pytest.mark.parametrize(
    "rpc",
    ["SandboxGetFromNameV2", "SecretGetOrCreate", "VolumeGetOrCreate", "ImageGetOrCreate", "SandboxCreateV2"],
)
@pytest.mark.parametrize("action", ["status", "lose"])
def test_a_start_that_fails_at_any_point_can_be_repeated(
    modal: Modal, loopback: Loopback, rpc: str, action: str
) -> None:
    loopback.secret("keys", ONE="1")
    loopback.faults({"rpc": rpc, "action": action, "status": "PERMISSION_DENIED", "times": 1})
    spec = sandbox_spec(secrets=("keys",))
    try:
        handle = modal.start(spec, deadline=PATIENCE)  # a create that was done all the same is found
    except Refused as problem:
        assert problem.code == "provider-permission"
        handle = modal.start(spec, deadline=PATIENCE)
    assert [one["id"] for one in named(loopback, spec.name)] == [handle.data["sandbox_id"]]
    modal.open(handle).terminate(deadline=PATIENCE)


def test_no_call_outlives_its_deadline_when_nobody_answers(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    sandbox = modal.open(started())
    assert sandbox.poll() is None
    os.kill(loopback.pid, signal.SIGSTOP)
    try:
        for call in (
            lambda: sandbox.poll(deadline=0.5),
            lambda: sandbox.exec(("true",), deadline=0.5),
            lambda: sandbox.read("spec.json", deadline=0.5),
            lambda: sandbox.tunnel(2222, deadline=0.5),
            lambda: sandbox.terminate(deadline=0.5),
            lambda: modal.list("anybody", deadline=0.5),
            lambda: modal.start(sandbox_spec(), deadline=0.5),
        ):
            began = time.monotonic()
            with pytest.raises(Unreachable) as raised:
                call()
            assert raised.value.code in ("provider-timeout", "provider-pending")
            assert time.monotonic() - began < 2
    finally:
        os.kill(loopback.pid, signal.SIGCONT)
    until(lambda: sandbox.poll(deadline=PATIENCE) is None, "life after the freeze")


def test_a_list_of_a_hundred_is_whole(modal: Modal, loopback: Loopback) -> None:
    modal.list("many", deadline=PATIENCE)
    loopback.crowd("many", 100)
    before = loopback.record()["seen"]
    listed = modal.list("many", deadline=PATIENCE)
    seen = loopback.record()["seen"]  # a create that another test left may still be on its way: only these two count
    asked = [seen[rpc] - before.get(rpc, 0) for rpc in ("SandboxListV2", "SandboxTagsGet")]
    assert asked == [5, 100]
    assert sorted(one.handle.name for one in listed) == [f"task-{number:08d}.1" for number in range(100)]
    assert {one.tags["owner"] for one in listed} == {"many"}
    assert all(modal.open(one.handle).poll() is None for one in listed[:3])


def test_a_sandbox_outlives_a_server_that_is_killed(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    handle = started()
    sandbox = modal.open(handle)
    sandbox.put("kept", b"here", deadline=PATIENCE)
    os.kill(loopback.pid, signal.SIGKILL)
    assert [one["live"] for one in named(loopback, handle.name)] == [True]
    assert sandbox.read("kept", deadline=PATIENCE) == b"here"
    assert modal.start(sandbox_spec(name=handle.name), deadline=PATIENCE) == handle
    assert sandbox.terminate(deadline=PATIENCE).cause == "terminated"


def test_a_program_that_modal_forgets_is_no_missing_sandbox(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    sandbox = modal.open(started())
    loopback.faults({"rpc": "TaskExecWait", "action": "status", "status": "NOT_FOUND"})
    with pytest.raises(Unreachable) as raised:
        sandbox.exec(("true",), deadline=PATIENCE)
    assert raised.value.code == "program-lost"


def test_a_slow_answer_is_waited_for_within_the_deadline(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    sandbox = modal.open(started())
    loopback.faults({"rpc": "SandboxWaitV2", "action": "slow", "seconds": 0.6})
    with pytest.raises(Unreachable):
        sandbox.poll(deadline=0.2)
    assert sandbox.poll(deadline=PATIENCE) is None


def test_a_stream_that_is_cut_loses_no_byte(modal: Modal, loopback: Loopback, started: Callable[..., Handle]) -> None:
    sandbox = modal.open(started())
    loopback.faults({"rpc": "TaskExecStdioRead", "action": "cut", "messages": 1, "times": 4})
    done = sandbox.exec(("seq", "1", "200000"), deadline=PATIENCE)
    assert done.stdout.splitlines() == [str(number).encode() for number in range(1, 200_001)]


def test_a_vanished_sandbox_is_gone_and_its_files_remain(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    handle = started()
    sandbox = modal.open(handle)
    sandbox.put("kept", b"here", deadline=PATIENCE)
    loopback.vanish(handle.name)
    assert sandbox.poll().cause == "vanished"
    assert sandbox.read("kept", deadline=PATIENCE) == b"here"
    assert sandbox.terminate(deadline=PATIENCE) == sandbox.poll()


def test_a_sandbox_that_ends_under_a_read_is_read_from_the_volume(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    handle = started()
    sandbox = modal.open(handle)
    sandbox.put("kept", b"here", deadline=PATIENCE)
    loopback.faults({"rpc": "TaskExecStart", "action": "slow", "seconds": 0.5})
    threading.Timer(0.2, lambda: loopback.vanish(handle.name)).start()
    assert sandbox.read("kept", deadline=PATIENCE) == b"here"


def test_terminate_that_fails_does_not_say_it_ended(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    sandbox = modal.open(started())
    loopback.faults({"rpc": "SandboxTerminateV2", "action": "status", "status": "UNAVAILABLE"})
    with pytest.raises(Unreachable):
        sandbox.terminate(deadline=PATIENCE)
    loopback.faults()
    assert sandbox.poll() is None
    assert sandbox.terminate(deadline=PATIENCE).cause == "terminated"


def test_a_gpu_that_does_not_come_is_pending_and_then_adopted_once(modal: Modal, loopback: Loopback) -> None:
    loopback.machines(False)
    spec = sandbox_spec(sizes=GPU)
    for _ in range(2):
        with pytest.raises(Unreachable) as raised:
            modal.start(spec, deadline=0.8)
        assert raised.value.code == "provider-pending"
        assert "A10G" in raised.value.message
    loopback.machines(True)
    handle = modal.start(spec, deadline=PATIENCE)
    assert len(named(loopback, spec.name)) == 1
    sandbox = modal.open(handle)
    assert sandbox.exec(("echo", "gpu"), deadline=PATIENCE).stdout == b"gpu\n"
    assert sandbox.terminate(deadline=PATIENCE).cause == "terminated"


def test_a_second_process_does_not_call_a_queued_gpu_started(modal: Modal, loopback: Loopback) -> None:
    loopback.machines(False)
    spec = sandbox_spec(sizes=GPU)
    with pytest.raises(Unreachable):
        modal.start(spec, deadline=0.8)
    other = Modal(ModalSettings())
    with pytest.raises(Unreachable) as raised:
        other.start(spec, deadline=0.8)
    assert raised.value.code == "provider-pending"
    loopback.machines(True)
    handle = other.start(spec, deadline=PATIENCE)
    assert len(named(loopback, spec.name)) == 1
    assert modal.start(spec, deadline=PATIENCE) == handle
    modal.open(handle).terminate(deadline=PATIENCE)


def test_a_queued_gpu_is_asked_for_again_when_who_asked_has_ended(modal: Modal, loopback: Loopback) -> None:
    loopback.machines(False)
    spec = sandbox_spec(sizes=GPU)
    code = f"""
from parhelia_mcp.errors import Unreachable
from parhelia_mcp.providers.modal import Modal, ModalSettings
from tests.providers.contract import SandboxSpec, Sizes
try:
    Modal(ModalSettings()).start({spec!r}, deadline=2.0)
except Unreachable as problem:
    print(problem.code)
"""
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (asked.stdout, asked.stderr) == ("provider-pending\n", "")
    loopback.machines(True)
    handle = modal.start(spec, deadline=PATIENCE)
    assert modal.open(handle).exec(("echo", "gpu"), deadline=PATIENCE).stdout == b"gpu\n"
    assert [one["id"] for one in named(loopback, spec.name) if one["live"]] == [handle.data["sandbox_id"]]
    modal.open(handle).terminate(deadline=PATIENCE)


def test_a_secret_that_is_missing_or_lacks_a_key_is_refused_by_name(modal: Modal, loopback: Loopback) -> None:
    loopback.secret("keys", ONE="1")
    for wanted, told in (("absent", "absent"), ("keys:ONE,TWO", "TWO")):
        spec = sandbox_spec(secrets=(wanted,))
        with pytest.raises(Refused) as raised:
            modal.start(spec, deadline=PATIENCE)
        assert raised.value.code == "secret-missing"
        assert told in raised.value.message
        assert named(loopback, spec.name) == []


def test_the_credential_reaches_the_runner_alone_and_the_secret_the_sandbox(
    modal: Modal, loopback: Loopback, started: Callable[..., Handle]
) -> None:
    loopback.secret("keys", DATABASE_URL="db://")
    handle = started(secrets=("keys:DATABASE_URL",), credential={"ANTHROPIC_API_KEY": "sk-dummy"})
    shown = modal.open(handle).exec(("env",), deadline=PATIENCE).stdout.decode()
    assert "DATABASE_URL=db://" in shown
    record = str(loopback.record()["sandboxes"])
    assert "sk-dummy" not in record + str(handle) + repr(sandbox_spec(credential={"K": "sk-dummy"}))


def test_a_timeout_that_modal_does_not_allow_is_refused_at_once(modal: Modal) -> None:
    with pytest.raises(Refused) as raised:
        modal.start(sandbox_spec(timeout_s=25 * 3600.0))
    assert raised.value.code == "timeout-too-long"
