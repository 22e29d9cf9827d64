"""Every class that the SDK may raise reads as one of our errors."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from modal import exception

from parhelia_mcp.errors import Corrupted, LocalFault, Problem, Refused, Unreachable
from parhelia_mcp.providers.modal.failures import FOREIGN, KINDS, translate

PUBLIC = {
    name: found
    for name, found in vars(exception).items()
    if inspect.isclass(found) and found.__module__ == "modal.exception" and not name.startswith("_")
}
CONTROL_FLOW = {"InputCancellation"}  # a BaseException of Modal's own containers


def test_the_table_names_every_class_of_the_sdk_and_no_other() -> None:
    assert set(KINDS) == set(PUBLIC) - CONTROL_FLOW


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_class_of_the_sdk_becomes_an_error_with_code_cause_and_fix(name: str) -> None:
    raised = (
        PUBLIC[name]("the vendor's words", "im-1") if name == "ImageBuildError" else PUBLIC[name]("the vendor's words")
    )
    problem = translate(raised)
    assert type(problem) is KINDS[name].problem
    assert problem.code == KINDS[name].code
    assert "the vendor's words" in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConnectionRefusedError("refused"), "provider-unreachable"),
        (ConnectionResetError("reset"), "provider-unreachable"),
        (OSError(113, "No route to host"), "provider-unreachable"),
        (TimeoutError(), "provider-timeout"),
        (exception.TimeoutError("theirs"), "provider-timeout"),
    ],
)
def test_errors_of_the_system_are_translated_too(raised: Exception, code: str) -> None:
    assert isinstance(translate(raised), Unreachable)
    assert translate(raised).code == code


def test_a_class_that_a_newer_sdk_adds_reads_as_its_nearest_relative() -> None:
    newer = type("QuotaError", (exception.ResourceExhaustedError,), {"__module__": "modal.exception"})
    assert translate(newer("x")).code == "provider-capacity"


def test_kinds_of_trouble_stay_apart() -> None:
    assert KINDS["AuthError"].problem is Refused
    assert KINDS["DataLossError"].problem is Corrupted
    assert KINDS["VersionError"].problem is LocalFault
    assert all(issubclass(kind.problem, Problem) for kind in [*KINDS.values(), *FOREIGN.values()])


def test_the_provider_is_imported_without_the_sdk() -> None:
    code = "import sys, parhelia_mcp.providers.modal; sys.exit('modal' in sys.modules or 'asyncssh' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
