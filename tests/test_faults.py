"""The fault table, row by row: what must hold when a part fails at that place. A row is proved here or by the test it names.

The rows are those of the project's fault table, 1 to 45. `ELSEWHERE` names the tests of other files; a test below proves
that each of them is there. Of row 5 a sandbox that never gets ready is a case of the diagnosis: waiting for it takes minutes.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from parhelia_mcp import locks
from tests.diagnosis.ward import Patient
from tests.front import Front, eventually

ROOT = Path(__file__).resolve().parent
ROWS = range(1, 46)
ELSEWHERE = {  # row -> the tests that hold its parts: file, name
    4: ["providers/test_modal_faults.py: test_a_create_whose_answer_is_lost_is_found_by_name"],
    5: [
        "providers/test_modal_faults.py: test_a_create_that_fails_leaves_nothing_and_can_be_repeated",
        "providers/test_modal_faults.py: test_a_start_that_fails_at_any_point_can_be_repeated",
    ],
    6: [
        "diagnosis/test_remote.py: test_what_modal_refuses_is_named_with_what_to_do",
        "diagnosis/test_remote.py: test_a_gpu_that_nobody_has_is_named_and_the_next_one_taken",
        "diagnosis/test_remote.py: test_a_region_that_is_refused_is_left_for_any_other",
    ],
    10: [
        "providers/test_modal_billing.py: test_what_modal_charges_this_account_comes_before_the_table_and_after_the_users_own"
    ],
    13: ["checkpoint/test_crash.py: test_a_create_killed_at_any_step_harms_nothing"],
    14: ["checkpoint/test_crash.py: test_killed_at_a_random_moment"],
    15: [
        "checkpoint/test_crash.py: test_a_full_disk_ends_a_create_clearly",
        "test_checkpoint_policy.py: test_a_full_disk_refuses_a_checkpoint_and_harms_none_before",
    ],
    16: ["checkpoint/test_crash.py: test_an_io_error_is_not_listed_as_done"],
    17: ["checkpoint/test_round_trip.py: test_a_file_that_grows_while_it_is_read_is_named"],
    18: [
        "checkpoint/test_round_trip.py: test_unreadable_files_make_it_partial",
        "test_checkpoint_policy.py: test_what_cannot_be_read_makes_it_partial_and_says_so",
    ],
    19: ["test_checkpoint_claude.py: test_a_conversation_killed_in_a_tool_call_goes_on_where_it_was"],
    20: [
        "checkpoint/test_damage.py: test_every_flipped_byte_is_found",
        "test_checkpoint_job.py: test_a_damaged_checkpoint_is_found_and_never_restored",
    ],
    21: ["checkpoint/test_damage.py: test_a_manifest_that_says_something_else_is_damaged"],
    22: ["checkpoint/test_damage.py: test_a_target_that_holds_something_is_refused_with_what_is_there"],
    23: [
        "checkpoint/test_crash.py: test_a_restore_killed_at_any_step_leaves_old_or_new",
        "checkpoint/test_crash.py: test_a_restore_without_room_leaves_the_target_alone",
    ],
    24: ["checkpoint/test_damage.py: test_a_hostile_tree_writes_nothing"],
    25: ["test_checkpoint_claude.py: test_a_conversation_that_is_missing_is_said_and_the_files_go_on"],
    26: ["test_checkpoint_job.py: test_of_two_resumes_at_once_one_is_busy"],
    29: ["diagnosis/test_installation.py: test_a_database_that_is_locked_is_said_to_be_busy"],
    30: ["diagnosis/test_installation.py: test_a_damaged_database_is_never_replaced_unasked_and_is_rebuilt_when_asked"],
    31: ["test_main_job.py: test_sixteen_first_commands_at_once_all_work"],
    32: ["diagnosis/test_installation.py: test_a_database_of_a_newer_version_is_not_touched"],
    33: ["diagnosis/test_installation.py: test_a_read_only_home_can_be_read_and_says_what_to_change"],
    34: [
        "providers/test_modal_failures.py: test_the_table_names_every_class_of_the_sdk_and_no_other",
        "providers/test_modal_failures.py: test_a_class_of_the_sdk_becomes_an_error_with_code_cause_and_fix",
        "providers/test_modal_faults.py: test_a_status_of_the_control_plane_has_its_own_error",
    ],
    35: ["providers/test_modal_faults.py: test_no_call_outlives_its_deadline_when_nobody_answers"],
    36: [
        "diagnosis/test_live.py: test_a_runner_that_was_killed_loses_the_session_and_not_the_work",
        "diagnosis/test_remote.py: test_a_sandbox_that_was_preempted_is_lost_and_comes_back",
    ],
    37: [
        "attach/test_port.py: test_a_transfer_cut_ten_times_is_whole_in_the_end",
        "attach/test_port.py: test_a_taken_port_is_left_alone_and_another_one_opens",
        "attach/test_keys.py: test_ssh_is_refused_with_the_right_cause_and_nothing_is_run",
    ],
    38: ["test_main_job.py: test_two_hundred_megabytes_of_output_stay_out_of_memory"],
    39: [
        "diagnosis/test_live.py: test_a_stopped_agent_is_hung_and_goes_on_with_its_work",
        "diagnosis/test_live.py: test_a_frozen_sandbox_is_not_a_hung_agent_and_comes_back",
        "diagnosis/test_live.py: test_a_control_socket_that_is_cut_is_a_partition_and_nothing_is_ended",
        "diagnosis/test_live.py: test_memory_that_was_too_little_is_doubled",
        "diagnosis/test_live.py: test_an_exit_code_is_the_tasks_own_failure_and_is_not_repeated_unasked",
        "diagnosis/test_live.py: test_a_full_disk_is_named_and_with_room_the_task_goes_on",
        "diagnosis/test_live.py: test_a_bad_entrypoint_is_named_and_its_log_shown",
    ],
    40: [
        "workspace/test_packing.py: test_what_cannot_travel_is_refused_by_name",
        "workspace/test_shapes.py: test_a_workspace_goes_in_exactly_and_comes_back_as_a_ref",
    ],
    43: [
        "mcp/test_wire.py: test_nothing_but_messages_reaches_standard_output_whatever_prints",
        "mcp/test_wire.py: test_the_end_of_input_ends_it_in_the_middle_of_a_call",
        "mcp/test_wire.py: test_a_cancelled_call_is_not_answered_and_the_next_one_is",
        "mcp/test_wire.py: test_garbage_is_survived_and_answered_where_somebody_waits",
    ],
    44: ["test_main_job.py: test_closing_the_reader_is_silent"],
    45: ["test_storm.py: test_after_a_storm_everything_adds_up"],
}


def names_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_row_is_proved() -> None:
    named = [name for name in names_of(Path(__file__)) if name.startswith("test_row_")]
    here = {int(row) for name in named for row in re.findall(r"_(\d\d)_", name)}
    assert sorted(here | set(ELSEWHERE)) == list(ROWS)
    said = [where.split(": ") for places in ELSEWHERE.values() for where in places]
    assert [name for path, name in said if not name.startswith("test_") or name not in names_of(ROOT / path)] == []


def rows(front: Front, sql: str) -> list[tuple]:
    with sqlite3.connect(front.home / "parhelia.db") as db:
        return db.execute(sql).fetchall()


def die_at(front: Front, place: str, *argv: str) -> None:
    done = front.run(*argv, code=None, env={"PARHELIA_FAILPOINT": f"{place}@1:kill9"})
    assert done.returncode == -signal.SIGKILL, done


def test_row_01_dying_before_the_reservation_leaves_nothing(front: Front, repo: Path) -> None:
    front.run("list")
    die_at(front, "submit.before_reserve", "run", "-d", "--", "true")
    assert rows(front, "SELECT * FROM sessions") == []
    assert rows(front, "SELECT spent, reserved FROM totals") == [(0, 0)]


@pytest.mark.parametrize(
    ("row", "place"), [(2, "submit.after_reserve"), (3, "start.created"), (8, "settle.charged"), (8, "settle.done")]
)
def test_row_02_and_03_and_08_dying_on_the_way_is_gone_on_from_by_the_next_command(
    front: Front, repo: Path, row: int, place: str
) -> None:
    front.env["PARHELIA_PRICES_LOCAL_USD_PER_HOUR"] = "1.0"
    front.run(
        "run",
        "--max-usd",
        "1",
        "--timeout-hours",
        "0.1",
        "--",
        "sh",
        "-c",
        "echo made > m.txt",
        code=None,
        env={"PARHELIA_FAILPOINT": f"{place}@1:kill9"},
    )
    task = front.json("list")["tasks"][0]["task_id"]
    shown = front.until(task, "completed", "failed", "lost")
    assert shown["state"] == "completed"
    assert front.git("show", f"parhelia/{task}:m.txt") == "made\n"
    eventually(lambda: front.show(task)["reserved_usd"] == 0, what="the release")
    assert len(list(front.home.glob(f"tasks/{task}/sessions/*/sandbox.json"))) == 1, "started once"
    keys = rows(front, "SELECT session, kind, key FROM ledger WHERE session <> ''")
    assert len(keys) == len(set(keys))


def test_row_03_a_start_that_nobody_recorded_is_adopted(front: Front, repo: Path) -> None:
    die_at(front, "start.created", "run", "-d", "--", "sh", "-c", "exit 5")
    assert len(list(front.home.glob("tasks/*/sessions/1/sandbox.json"))) == 1
    task = front.json("list")["tasks"][0]["task_id"]
    assert front.until(task, "failed")["exit_code"] == 5


def test_row_07_two_that_want_the_last_dollar_get_it_once(front: Front, repo: Path) -> None:
    front.env["PARHELIA_PRICES_LOCAL_USD_PER_HOUR"] = "1.0"
    front.run("budget", "set", "1")
    options = ("--timeout-hours", "0.9", "--max-usd", "1")
    started = [front.start("run", "-d", "--json", *options, "--", "sleep", "600") for _ in range(6)]
    codes = sorted(process.wait(timeout=60) for process in started)
    for process in started:
        process.communicate()
    assert codes.count(0) == 1, codes
    assert front.json("budget", "show")["remaining_usd"] >= 0
    front.run("session", "kill", front.json("list")["tasks"][0]["task_id"])


def test_row_09_a_ceiling_below_what_runs_stops_only_what_is_new(front: Front, repo: Path) -> None:
    front.env["PARHELIA_PRICES_LOCAL_USD_PER_HOUR"] = "1.0"
    patient = Patient(front, "sleep", "600", options=("--timeout-hours", "0.9")).working()
    assert "go on" in front.json("budget", "set", "0.5")["note"]
    refused = front.run("run", "-d", "--json", "--", "true", code=125)
    assert json.loads(refused.stdout)["error"]["code"] == "over-budget"
    assert front.show(patient.task)["state"] == "running"
    front.run("session", "kill", patient.task)


def test_row_11_a_kill_that_is_not_proved_says_that_it_may_still_cost(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    os.kill(int((front.home / "controller.lock").read_text()), signal.SIGKILL)
    with locks.exclusive(patient.folder() / "advance.lock", wait_s=5):
        process = front.start("session", "kill", patient.task)
        shown = eventually(
            lambda: (found := front.show(patient.task))["kill_requested_at"] and found, what="the request"
        )
        assert shown["state"] == "running"
        assert shown["diagnosis"]["cause"] == "kill-unconfirmed"
        assert "may still cost" in shown["diagnosis"]["what"]
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert front.show(patient.task)["state"] == "killed"


def test_row_12_killing_what_is_gone_is_no_error(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    patient.signal(signal.SIGKILL, "guard", "runner")
    assert front.json("session", "kill", patient.task)["state"] in ("killed", "lost")
    assert "ended already" in front.json("session", "kill", patient.task)["note"]


def test_row_27_a_machine_that_slept_loses_no_session(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    controller = int((front.home / "controller.lock").read_text())
    os.kill(controller, signal.SIGSTOP)
    patient.signal(signal.SIGSTOP, "guard", "runner", "agent")
    patient.age_heartbeat(600)
    for pid in (controller, *(patient.state()[name]["pid"] for name in ("guard", "runner", "agent"))):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: patient.diagnosis()["cause"] in ("healthy", "port-taken"), what="its heart to beat again")
    assert front.show(patient.task)["state"] == "running"
    front.run("session", "kill", patient.task)


def test_row_28_a_clock_that_jumps_makes_no_negative_cost(front: Front, repo: Path) -> None:
    front.env["PARHELIA_PRICES_LOCAL_USD_PER_HOUR"] = "1.0"
    patient = Patient(front, "sleep", "600", options=("--timeout-hours", "0.5")).working()
    with sqlite3.connect(front.home / "parhelia.db") as db:  # as a clock that was put back two hours would show it
        db.execute("UPDATE sessions SET started_at = '2099-01-01T00:00:00.000Z' WHERE task = ?", (patient.task,))
    front.run("session", "kill", patient.task)
    money = front.json("budget", "show")
    assert (money["spent_usd"] >= 0, money["reserved_usd"]) == (True, 0)


def test_row_41_a_broken_configuration_starts_nothing_and_is_named_by_line(front: Front, repo: Path) -> None:
    settings = front.user_home / ".config" / "parhelia" / "parhelia.toml"
    settings.parent.mkdir(parents=True)
    for text, words in (
        ("[modal\n", "not TOML"),
        ("[modal]\nregoin = 1\n", "modal.region"),
        ('[modal]\nsecrets = ["huggingface"]\n', "the agent may see"),
        ("[budget]\nper_task_usd = true\n", "per_task_usd"),
    ):
        settings.write_text(text)
        error = front.error("submit", "go", code=2)
        assert error["code"] == "bad-config"
        assert words in error["message"]
        assert re.search(r"parhelia\.toml:\d", error["message"])


def test_row_42_a_lock_of_the_dead_is_free(front: Front, repo: Path) -> None:
    path = front.home / "controller.lock"
    front.run("list")
    script = "import sys, time; from pathlib import Path; from parhelia_mcp import locks; locks.try_acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert locks.held(path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not locks.held(path)
    task = front.submit("true")
    front.until(task, "completed")


def test_row_44_an_interrupt_ends_in_130_and_half_of_nothing(front: Front, repo: Path) -> None:
    patient = Patient(front, "sleep", "600").working()
    process = front.start("logs", patient.task, "--follow", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    assert process.wait(30) == 130
    for line in (first + out).splitlines():
        json.loads(line)
    front.run("session", "kill", patient.task)
