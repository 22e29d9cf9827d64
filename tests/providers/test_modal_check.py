"""What `doctor` is told of Modal, part by part, with the command that mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parhelia_mcp.providers.modal import ModalSettings
from parhelia_mcp.providers.modal.check import Row, check
from tests.front import Front
from tests.modal_loopback.client import Loopback

PATIENCE = 30.0


def looked(settings: ModalSettings, *secrets: str) -> dict[str, Row]:
    return {row.name: row for row in check(settings, secrets, deadline=PATIENCE)}


def test_everything_that_is_there_is_ok_and_nothing_is_made(loopback: Loopback) -> None:
    rows = looked(ModalSettings(app="never-made", volume="never-made", region="us-west"))
    assert {row.state for row in rows.values()} == {"ok"}
    assert set(rows) == {"modal", *(f"modal-{part}" for part in ("token", "reachable", "volume", "image", "region"))}
    again = looked(ModalSettings(app="never-made", volume="never-made"))
    assert "first task makes it" in again["modal-reachable"].what
    assert "first task makes it" in again["modal-volume"].what


def test_a_secret_without_its_key_is_broken_and_says_how_to_make_it(loopback: Loopback) -> None:
    loopback.secret("half", ONE="1")
    loopback.secret("whole", ONE="1")
    rows = looked(ModalSettings(secrets=("half:ONE,TWO", "absent")), "whole:ONE")
    half, absent = rows["modal-secret half"], rows["modal-secret absent"]
    assert (half.state, half.fix) == ("broken", "modal secret create half ONE=... TWO=...")
    assert "TWO" in half.what
    assert (absent.state, absent.fix) == ("broken", "modal secret create absent KEY=VALUE")
    assert rows["modal-secret whole"] == Row("modal-secret whole", "ok", "there, with ONE")


def test_a_dockerfile_that_is_not_there_is_broken(loopback: Loopback, tmp_path: Path) -> None:
    assert looked(ModalSettings(dockerfile=tmp_path / "absent"))["modal-image"].state == "broken"


@pytest.mark.parametrize(("status", "part", "fix"), [
    ("UNAUTHENTICATED", "modal-token", "modal setup"),
    ("UNAVAILABLE", "modal-reachable", "parhelia doctor"),
])  # fmt: skip
def test_a_refused_token_and_a_silent_modal_are_two_things(
    loopback: Loopback, status: str, part: str, fix: str
) -> None:
    loopback.faults({"rpc": "AppGetOrCreate", "action": "status", "status": status})
    rows = looked(ModalSettings())
    assert rows[part].state == "broken"
    assert rows[part].fix.startswith(fix)
    assert "modal-volume" not in rows


def test_doctor_shows_every_part(users: Callable[..., Front], loopback: Loopback) -> None:
    user = users(**loopback.env, PARHELIA_PROVIDER="modal")
    checks = {one["name"]: one["state"] for one in user.json("doctor", code=None)["checks"]}
    assert {checks[f"modal-{part}"] for part in ("token", "reachable", "volume", "image", "region")} == {"ok"}
    settings = user.user_home / ".config" / "parhelia" / "parhelia.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[modal]\nsecrets = ["absent:TOKEN"]\n')
    absent = next(one for one in user.json("doctor", code=None)["checks"] if one["name"] == "modal-secret absent")
    assert (absent["state"], absent["fix"]) == ("broken", "modal secret create absent TOKEN=...")


def test_the_check_runs_in_a_process_of_its_own(loopback: Loopback, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PARHELIA_HOME": str(tmp_path / "state")}
    argv = [sys.executable, "-m", "parhelia_mcp.providers.modal.check"]
    done = subprocess.run(argv, env={**environment, **loopback.env}, capture_output=True, timeout=PATIENCE, check=True)
    assert {tuple(row)[1] for row in json.loads(done.stdout)} == {"ok"}
    without = {name: value for name, value in loopback.env.items() if "TOKEN" not in name}
    done = subprocess.run(argv, env={**environment, **without}, capture_output=True, timeout=PATIENCE, check=True)
    assert ["modal-token", "broken"] in [row[:2] for row in json.loads(done.stdout)]
