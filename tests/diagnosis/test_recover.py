"""What recovery refuses: twice at once, the killed, what keeps crashing, what there is no money for."""

from __future__ import annotations

import signal
from pathlib import Path

from parhelia_mcp import locks
from tests.diagnosis.ward import Patient
from tests.front import Front


def ended(front: Front, *command: str) -> Patient:
    patient = Patient(front, *command)
    front.until(patient.task, "failed", "completed")
    return patient


def test_two_recoveries_of_one_task_never_run_at_once(front: Front, repo: Path) -> None:
    patient = ended(front, "false")
    with locks.exclusive(front.home / "tasks" / patient.task / "recover.lock"):
        assert front.error("recover", patient.task, "--action", "restart", code=8)["code"] == "busy"
    both = [front.start("recover", patient.task, "--action", "restart", "--json") for _ in range(2)]
    codes = sorted(process.wait(timeout=60) for process in both)
    assert codes[0] == 0
    sessions = front.show(patient.task)["sessions"]
    assert len(sessions) == 1 + codes.count(0)
    for process in both:
        process.communicate()


def test_a_killed_session_comes_back_only_when_a_person_says_how(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    front.run("session", "kill", patient.task)
    refused = front.error("recover", patient.task, "--yes", code=4)
    assert (refused["code"], refused["hint"]) == ("killed", f"parhelia resume {patient.task}")
    agent = {"CLAUDECODE": "1"}
    assert front.error("recover", patient.task, "--action", "resume", code=4, env=agent)["code"] == "killed"
    assert front.show(patient.task)["diagnosis"]["cause"] == "killed"
    front.run("session", "recover", patient.task, "--action", "resume")
    front.until(patient.task, "running")
    front.run("session", "kill", patient.task)


def test_the_third_end_for_one_reason_is_not_followed_by_a_fourth(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    for number in (1, 2, 3):
        state = front.home / "tasks" / patient.task / "sessions" / str(number) / "state.json"
        front.until(patient.task, "running")
        patient.folder = lambda n=1, path=state.parent: path  # type: ignore[method-assign]
        patient.signal(signal.SIGKILL, "runner")
        front.until(patient.task, "lost")
        if number < 3:
            assert f"{patient.task}.{number + 1}" in front.json("recover", patient.task, "--yes")["did"]
    refused = front.error("recover", patient.task, "--yes", code=4)
    assert refused["code"] == "crash-loop"
    assert "3 sessions" in refused["message"]
    patient.typed(refused["hint"])


def test_recovery_never_passes_the_budget(front: Front, repo: Path) -> None:
    patient = ended(front, "false")
    front.run("budget", "set", "0")
    refused = front.error("recover", patient.task, "--action", "restart", code=4)
    assert refused["code"] == "over-budget"
    assert front.show(patient.task)["sessions"] == [f"{patient.task}.1"]


def test_a_session_that_works_is_left_alone(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    assert front.json("recover", patient.task, "--yes")["did"] == "nothing"
    assert front.error("recover", patient.task, "--action", "resume", code=8)["code"] == "session-live"
    assert front.json("recover", patient.task, "--action", "kill")["state"] == "killed"


def test_a_restart_begins_with_the_files_that_were_given(front: Front, repo: Path) -> None:
    patient = ended(front, "sh", "-c", "cat a.txt; echo changed > a.txt; exit 3")
    (repo / "a.txt").write_text("later\n")
    front.json("recover", patient.task, "--action", "restart")
    front.until(patient.task, "failed")
    assert front.text("logs", patient.task, "--stream", "output") == "one\n"


def test_sizes_of_ones_own_are_planned_shown_as_a_command_and_acted_on(front: Front, repo: Path) -> None:
    patient = ended(front, "sh", "-c", "test -e once && exit 0; touch once; exit 7")
    looked = front.json("recover", patient.task, "--memory", "0.5", code=1)
    assert (looked["cause"], looked["plan"]["memory_gb"], looked["did"]) == ("agent-exit", 0.5, "looked")
    assert looked["next"] == f"parhelia recover {patient.task} --action resume --memory 0.5"
    refused = front.error("recover", patient.task, "--action", "resume", "--gpu", "X9000", code=4)
    assert refused["code"] == "gpu-unavailable"
    assert front.show(patient.task)["sessions"] == [f"{patient.task}.1"]
    patient.typed(looked["next"])
    done = front.until(patient.task, "completed", "failed")
    assert (done["state"], done["memory_gb"]) == ("completed", 0.5)


def test_a_size_that_is_not_to_be_had_is_refused_before_anything_is_ended(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    patient.signal(signal.SIGSTOP, "agent")
    refused = front.error("recover", patient.task, "--yes", "--gpu", "X9000", code=4)
    assert refused["code"] == "gpu-unavailable"
    assert front.show(patient.task)["state"] == "running"
    front.run("session", "kill", patient.task)
