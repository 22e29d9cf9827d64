"""What a model reads when a call is refused: the cause with its numbers, and the call to make now."""

from __future__ import annotations

import re

import pytest
from mcp import Client

from parhelia_mcp.mcp_server import wording
from parhelia_mcp.mcp_server.server import Server
from tests.front import Front
from tests.mcp.talk import refused, talk

REFUSALS = {
    "unknown argument": (("submit", {"promt": "x"}), "did you mean prompt?"),
    "unknown tool": (("statsu", {}), "did you mean status?"),
    "wrong choice": (("budget", {"action": "sohw"}), "(did you mean show?). Nothing was done."),
    "out of range": (("status", {"wait_s": 601}), "wait_s should be less than or equal to 600, not 601"),
    "wrong type": (("logs", {"id": 7}), "id should be a valid string, not 7"),
    "missing": (("logs", {}), "id is required"),
    "unknown id": (("status", {"id": "task-zzzzzzzz"}), "Next: status() [unknown-id]"),
    "no id": (("logs", {"id": "../../etc"}), "is not the id of a task or session"),
    "nothing to do": (("submit", {}), 'Next: submit(prompt="Add tests for the parser")'),
    "no command": (("submit", {"command": []}), 'Next: submit(command=["pytest", "-q"])'),
    "no such gpu": (
        ("submit", {"command": ["true"], "gpu": "H100"}),
        'provider="modal" gpu="H100", or leave out gpu [',
    ),
    "our own files": (("submit", {"command": ["true"], "workspace": "../state"}), "lies in Parhelia's own files"),
    "no such state": (("status", {"state": "done"}), 'Next: state="running" [unknown-state]'),
    "bad mark": (("status", {"since": "yesterday"}), "is not a mark of an earlier status"),
    "bad cursor": (("status", {"cursor": "x"}), "start again without cursor"),
    "bad pattern": (("logs", {"id": "task-zzzzzzzz", "grep": "("}), "No task or session"),
    "nothing to set": (("budget", {"action": "set"}), 'Next: budget(action="set", ceiling_usd=25) [argument-missing]'),
    "half a diff": (("checkpoint", {"action": "diff", "a": "cp-00000000"}), "diff needs b."),
    "no such checkpoint": (("checkpoint", {"action": "show", "id": "cp-00000000"}), 'Next: checkpoint(action="list")'),
    "no such directory": (("submit", {"command": ["true"], "workspace": "/no/such"}), "/no/such"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_the_cause_and_the_next_call(server: Server, name: str) -> None:
    (tool, arguments), expected = REFUSALS[name]

    async def story(client: Client) -> str:
        return await refused(client, tool, **arguments)

    said = talk(server, story)
    assert expected in said
    assert re.search(r"\[[a-z-]+\]$", said), said
    assert not re.search(r"pydantic|Traceback|Error executing|parhelia_mcp", said)
    assert len(said) < 600


def test_an_unexpected_fault_has_an_id_that_leads_to_its_traceback(server: Server, front: Front) -> None:
    (front.home / "owner").mkdir(parents=True)  # a name that is read as a file when a session starts

    async def story(client: Client) -> str:
        return await refused(client, "submit", command=["true"])

    said = talk(server, story)
    fault = re.search(r"internal error ([0-9a-f]{8})", said)[1]
    log = front.home / "faults.log"
    assert "IsADirectoryError" not in said
    assert fault in log.read_text()
    assert "IsADirectoryError" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_smaller_gpu_that_fits_is_named() -> None:
    said = wording.as_call("parhelia budget set 9, or ask for less: --max-usd 2.50 --gpu L4. Then --force it")
    assert (
        said
        == 'ask the person to type: parhelia budget set 9, or ask for less: max_usd=2.50 gpu="L4". Then overwrite=true it'
    )
