"""Money as a person meets it: estimates, history, the ceiling, and amounts that are none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.front import Front

PRICED = {"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "3600"}  # a dollar a second


def test_an_estimate_prices_any_size_offline_with_the_date_and_source_of_its_prices(front: Front) -> None:
    told = front.json("budget", "estimate", "--provider", "modal", "--gpu", "A10G", "--timeout-hours", "2")
    (offer,) = told["offers"]
    assert (offer["gpu"], told["fits"], told["estimate_usd"]) == ("A10", True, 5.0)
    by_hand = 2 * 3600 * (0.000306 + 4 * 0.00003942 + 16 * 0.00000672)
    assert told["compute_usd"] == pytest.approx(by_hand, abs=1e-5)
    assert told["compute_usd"] + told["tokens_usd"] == pytest.approx(5)
    assert told["remaining_usd"] == 20
    assert told["prices_date"] == "2026-11-23"
    assert "modal.com/pricing" in told["prices_source"]
    text = front.text("budget", "estimate", "--model", "claude-opus-4-8")
    assert "input $5.00, output $25.00" in text
    assert "2026-11-23" in text


def test_an_estimate_is_what_submit_would_reserve_and_reserves_nothing(front: Front, repo: Path) -> None:
    sizes = ("--provider", "modal", "--cpu", "2", "--memory", "8", "--timeout-hours", "3", "--max-usd", "4")
    estimate = front.json("budget", "estimate", *sizes)
    dry = front.json("submit", "work", *sizes, "--dry-run")
    assert dry["estimate_usd"] == estimate["estimate_usd"] == 4
    assert dry["remaining_usd"] == estimate["remaining_usd"] == 21
    assert front.json("budget", "show")["reserved_usd"] == 0
    dear = front.json("budget", "estimate", "--provider", "modal", "--gpu", "H100", "--timeout-hours", "24")
    assert (dear["fits"], dear["estimate_usd"] > 100) == (False, True)
    assert "--timeout-hours" in dear["next"]


def test_what_the_table_does_not_know_has_the_highest_price(front: Front) -> None:
    known = front.json("budget", "estimate", "--provider", "modal", "--gpu", "B300")
    unknown = front.json("budget", "estimate", "--provider", "modal", "--gpu", "Z9", "--model", "gpt-12")
    assert unknown["compute_usd"] == known["compute_usd"]
    assert "modal has no GPU Z9" in unknown["note"]
    assert (unknown["model"]["listed"], unknown["model"]["output"]) == (False, 75)
    mine = front.json("budget", "estimate", env={"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "0.5"})
    assert (mine["compute_usd"], mine["overridden"]) == (2, ["local_usd_per_hour"])


def test_a_gpu_that_is_not_to_be_had_is_said_with_the_nearest_name(front: Front) -> None:
    usual = front.json("budget", "estimate", "--gpu", "h100")
    assert "This machine has no GPU" in usual["note"]
    assert "--provider modal --gpu H100" in usual["next"]
    assert "Did you mean A10?" in front.text("budget", "estimate", "--gpu", "a10x")
    assert front.json("submit", "x", "--gpu", "A10X", "--dry-run")["next"] == "--gpu A10"
    assert front.error("budget", "estimate", "--gpu", "H100:x", code=2)["code"] == "bad-gpu-count"


def test_history_says_where_the_money_went(front: Front, repo: Path) -> None:
    assert front.text("budget", "history") == "nothing was spent\n"
    front.run("run", "--timeout-hours", "0.001", "--", "echo", "dear", env=PRICED)
    front.run("run", "--", "true")
    history, shown = front.json("budget", "history"), front.json("budget", "show")
    (task,), (day,), (kind,) = history["by_task"], history["by_day"], history["by_kind"]
    assert task["name"] == front.json("list")["tasks"][1]["task_id"]
    assert kind["name"] == "compute"
    assert 0 < history["spent_usd"] == task["usd"] == day["usd"] == kind["usd"] == shown["spent_usd"] <= 3.6
    chart = front.text("budget", "history")
    for each in (task, day, kind):
        assert f"{each['name']:<13} {'$' + format(each['usd'], '.2f'):>8}  █" in chart


NO_AMOUNTS = ("nan", "inf", "-5", "50,00", "$50", "1e400", "", "0x10", "1_000", "٥", "fifty", "1e-9", "9" * 400)


def test_what_is_no_amount_is_refused_and_changes_nothing(front: Front, repo: Path) -> None:
    for amount in NO_AMOUNTS:
        error = front.error("budget", "set", amount, code=2)
        assert error["code"] == "bad-amount", amount
        assert amount[:70] in error["message"]
        assert len(error["message"]) < 250
    assert front.json("budget", "show")["ceiling_usd"] == 25
    for amount in ("nan", "-5", "50,00", "$50", "1e400", "٥"):
        error = front.error("run", "--max-usd", amount, "-d", "--json", "--", "true", code=125)
        assert (error["code"], error["hint"]) == ("bad-amount", "--max-usd 5"), amount
    assert front.error("submit", "work", code=2, env={"PARHELIA_BUDGET_CEILING_USD": "nan"})["code"] == "bad-config"
    assert front.json("list")["tasks"] == []


def test_a_ceiling_of_zero_is_valid_blocks_everything_and_says_so(front: Front, repo: Path) -> None:
    assert "blocks everything" in front.json("budget", "set", "0")["note"]
    refused = front.error("run", "--json", "--", "true", code=125)
    assert refused["code"] == "over-budget"
    assert "$0" in refused["message"]
    assert "ceiling of $0" in front.json("status")["budget"]["warning"]
    front.run("budget", "set", "5")
    front.run("run", "--", "true")


def test_a_projects_file_lowers_the_ceiling_for_what_starts_in_it_and_nowhere_else(front: Front, repo: Path) -> None:
    elsewhere = front.root / "elsewhere"
    elsewhere.mkdir()
    (repo / "parhelia.toml").write_text("[budget]\nceiling_usd = 2\n")
    here = front.json("budget", "show")
    assert (here["ceiling_usd"], here["remaining_usd"]) == (2, 2)
    assert "parhelia.toml" in here["note"]
    assert front.json("budget", "show", cwd=elsewhere)["ceiling_usd"] == 25
    priced = {"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "1"}
    refused = front.error("run", "-d", "--timeout-hours", "3", "--json", "--", "true", code=125, env=priced)
    assert "$2.00" in refused["message"]
    assert front.json("budget", "set", "20")["ceiling_usd"] == 20
    front.run("run", "--timeout-hours", "3", "--", "true", env=priced, cwd=elsewhere)
    assert front.json("budget", "show")["ceiling_usd"] == 2
    (repo / "parhelia.toml").write_text("[budget]\nceiling_usd = 200\n")
    assert front.error("run", "--json", "--", "true", code=125)["code"] == "bad-config"


def test_the_limit_of_a_day_holds_and_is_said(front: Front, repo: Path) -> None:
    priced = {**PRICED, "PARHELIA_BUDGET_PER_DAY_USD": "20", "PARHELIA_BUDGET_PER_TASK_USD": "25"}
    front.run("run", "--timeout-hours", "0.005", "--", "sleep", "0.2", env=priced)
    spent = front.json("budget", "show")["spent_usd"]
    hours = f"{(20 - spent + 0.1) / 3600:.6f}"
    refused = front.error("run", "--timeout-hours", hours, "--json", "--", "true", code=125, env=priced)
    assert refused["code"] == "over-daily-budget"
    assert f"${spent:.2f} of $20.00" in refused["message"]
    dry = front.json("submit", "x", "--max-usd", "19.9", "--timeout-hours", "0.0001", "--dry-run", env=priced)
    assert "this would be refused" in dry["note"]


def test_the_warning_shows_at_submit_and_in_status_from_its_threshold_on(front: Front, repo: Path) -> None:
    priced = {"PARHELIA_PRICES_LOCAL_USD_PER_HOUR": "1"}
    front.run("budget", "set", "10")
    below = front.run("run", "-d", "--json", "--timeout-hours", "5", "--", "sleep", "60", env=priced)
    assert b"% of the ceiling" not in below.stdout
    assert front.json("status")["budget"]["warning"] is None
    above = front.run("run", "-d", "--timeout-hours", "3", "--", "sleep", "60", env=priced)
    assert b"80 % of the ceiling is spent or reserved" in above.stdout
    assert "80 % of the ceiling" in front.text("status")
    assert "80 % of the ceiling" in front.json("budget", "show")["warning"]


def test_an_agent_without_a_terminal_lowers_the_ceiling_and_does_not_raise_it(front: Front) -> None:
    inside = {"CLAUDECODE": "1"}
    assert front.json("budget", "set", "10", env=inside)["ceiling_usd"] == 10
    refused = front.error("budget", "set", "11", code=4, env=inside)
    assert refused["code"] == "raise-refused"
    assert "parhelia budget set 11" in refused["hint"]
    assert front.json("budget", "show")["ceiling_usd"] == 10
    master, slave = os.openpty()
    done = subprocess.run(
        front.command("budget", "set", "11"),
        env={**front.env, **inside},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        timeout=30,
        check=False,
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == 0
    assert front.json("budget", "show")["ceiling_usd"] == 11
