"""Modal's own word about money: its prices before our table's, its figure beside the ledger's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parhelia_mcp.providers.modal import Modal
from tests.front import Front, eventually
from tests.modal_loopback.client import Loopback
from tests.modal_loopback.world import RATES

SIZES = ("--provider", "modal", "--cpu", "2", "--memory", "8")


@pytest.fixture
def charges(loopback: Loopback) -> Iterator[Callable[..., None]]:
    yield loopback.rates
    loopback.rates(**RATES)


def by_what(estimate: dict) -> dict[str, dict]:
    return {one["what"]: one for one in estimate["offers"][0]["prices"]}


def test_what_modal_charges_this_account_comes_before_the_table_and_after_the_users_own(
    users: Callable[..., Front], loopback: Loopback, charges: Callable[..., None]
) -> None:
    user = users(**loopback.env)
    charges(cpu_hour_cost="9", cpu_hour_cost_sandbox="0.5", mem_gib_hour_cost_sandbox="0.25", gpu_hour_cost_a10g="2")
    wanted = (*SIZES, "--gpu", "A10G", "--region", "us")
    eventually(lambda: "Modal's own" in user.text("budget", "estimate", *wanted), within=150)
    told = user.json("budget", "estimate", *wanted)
    assert told["offers"][0]["usd_per_hour"] == (2 * 0.5 + 8 * 0.25 + 2) * 1.5
    prices = by_what(told)
    assert {prices[what]["source"][:11] for what in ("core", "GiB", "A10")} == {"Modal's own"}
    assert prices["core"]["date"] > "2026-11-23T"
    assert "modal.com/pricing" in prices["region us"]["source"], "Modal says no multipliers"
    table = by_what(user.json("budget", "estimate", *SIZES, "--gpu", "H100"))["H100"]
    assert (table["usd_per_hour"], table["date"]) == (pytest.approx(3.9492), "2026-11-23"), "it said no H100"
    text = " ".join(user.text("budget", "estimate", *SIZES).split())
    assert (
        "core $0.5 an hour, GiB $0.25 an hour (Modal's own rates for this workspace (modal billing rates), 20" in text
    )

    charges(cpu_hour_cost_sandbox="0.7")
    loopback.faults({"rpc": "WorkspaceBillingRates", "action": "status", "status": "UNAVAILABLE"})
    later = by_what(user.json("budget", "estimate", *SIZES))
    assert later["core"]["usd_per_hour"] == 0.5, "kept for a day: nothing waits for Modal"
    own = user.json("budget", "estimate", *SIZES, env={"PARHELIA_PRICES_CPU_CORE_USD_PER_HOUR": "0.1"})
    assert (by_what(own)["core"]["usd_per_hour"], by_what(own)["core"]["source"]) == (0.1, "[prices]")
    dry = user.json("submit", "work", *SIZES, "--timeout-hours", "1", "--max-usd", "3.01", "--dry-run")
    assert dry["note"].startswith("$0.01 is left for tokens"), "3.00 of compute at Modal's prices"
    (user.home / "prices.json").unlink()
    assert by_what(user.json("budget", "estimate", *SIZES))["core"]["date"] == "2026-11-23"


def test_a_session_shows_what_modal_says_it_cost(users: Callable[..., Front], loopback: Loopback) -> None:
    user = users(**loopback.env, PARHELIA_PROVIDER="modal", PARHELIA_MODAL_CPU="1", PARHELIA_MODAL_MEMORY="1")
    user.repository()
    user.run("run", "--", "true")
    task = user.json("list")["tasks"][0]["task_id"]
    eventually(lambda: user.show(task)["provider_usd"], within=150)
    shown = user.show(task)
    assert 0 < shown["provider_usd"] < 0.01
    assert shown["provider_usd_at"] > shown["ended_at"]
    assert "of compute, modal said" in user.text("task", "show", task)
    assert user.json("budget", "show")["by_task"][0]["provider_usd"] == shown["provider_usd"]
    assert "PROVIDER SAYS" in user.text("budget", "show")
    assert loopback.record()["unimplemented"] == []


def test_rates_are_the_sandboxes_own_and_nonsense_is_left_out(
    modal: Modal, loopback: Loopback, charges: Callable[..., None]
) -> None:
    told = modal.rates(deadline=30)
    assert told is not None
    assert (told.cpu_core, told.memory_gb) == (0.1419, 0.024)
    assert {"A10", "A100-80GB", "RTX-PRO-6000", "H100"} == set(told.gpu)
    charges(cpu_hour_cost_sandbox="NaN", mem_gib_hour_cost_sandbox="-1", gpu_hour_cost_t4="Infinity")
    assert modal.rates(deadline=30) is None
