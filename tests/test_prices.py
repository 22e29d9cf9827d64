"""Prices that may be too high and never too low."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parhelia_mcp.model import Sizes
from parhelia_mcp.prices import GPU, MODELS, compute_rate_micro_per_hour, cost_micro, model_price, rates, worst_case

PLAIN = Sizes(4, 16)


def test_an_hour_of_a_sandbox_is_the_sum_of_its_parts():
    assert compute_rate_micro_per_hour("modal", PLAIN) == round(1e6 * 3600 * (4 * 0.00003942 + 16 * 0.00000672))
    with_gpu = compute_rate_micro_per_hour("modal", PLAIN._replace(gpu="H100"))
    assert with_gpu - compute_rate_micro_per_hour("modal", PLAIN) == 3_949_200


def test_names_of_gpus_are_taken_in_any_case_with_a_count_and_an_alias():
    def rate(gpu):
        return compute_rate_micro_per_hour("modal", Sizes(0, 0, gpu))

    assert rate("a10g") == rate("A10")
    assert rate("H100:8") == 8 * rate("H100")
    assert rate("A100") == rate("A100-80GB")
    assert rate("X9000") == max(map(rate, GPU))


def test_a_region_multiplies_and_an_unknown_one_most():
    everywhere, broad, narrow, unknown = (
        compute_rate_micro_per_hour("modal", PLAIN, region) for region in (None, "eu", "eu-west", "atlantis")
    )
    assert everywhere < broad < narrow == unknown


def test_local_compute_is_free_unless_priced():
    assert compute_rate_micro_per_hour("local", PLAIN) == 0
    assert compute_rate_micro_per_hour("local", PLAIN, None, {"local_usd_per_hour": 0.25}) == 250_000


def test_every_row_can_be_overridden():
    own = {
        "cpu_core_usd_per_hour": 1,
        "memory_gb_usd_per_hour": 0,
        "gpu_usd_per_hour": {"h100": 2},
        "region": {"eu": 3},
    }
    assert compute_rate_micro_per_hour("modal", Sizes(4, 16, "H100"), "eu", own) == 18_000_000
    assert rates(own)["gpu"]["H100"] == 2
    models = {"models": {"claude-opus-4-8": {"input": 1, "output": 2}, "mine": {"output": 7}}}
    assert model_price("claude-opus-4-8", models)[:3] == (1_000_000, 2_000_000, 1_250_000)
    assert model_price("mine", models).output == 7_000_000
    assert model_price("mine", models).input == model_price("unheard of").input


@pytest.mark.parametrize(
    "name",
    ["claude-opus-4-8", "claude-opus-4-8[1m]", "claude-opus-4-8-20260101", "us.anthropic.claude-opus-4-8-v1:0"],
)
def test_a_model_has_one_price_under_all_its_names(name):
    assert model_price(name) == MODELS["claude-opus-4-8"]


@pytest.mark.parametrize("name", ["claude-sonnet-9", "claude-opus-4-8-turbo", "gpt-9", ""])
def test_an_unknown_model_has_the_highest_price_of_every_kind(name):
    assert all(a >= b for row in MODELS.values() for a, b in zip(model_price(name), row, strict=True))


def test_a_reply_costs_what_the_client_itself_counts():
    usage = {
        "input_tokens": 1000,
        "cache_creation_input_tokens": 3000,
        "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
        "cache_read_input_tokens": 10_000,
        "output_tokens": 400,
        "server_tool_use": {"web_search_requests": 2},
    }
    assert cost_micro(usage, model_price("claude-opus-4-8")) == 5000 + 6250 + 20_000 + 5000 + 10_000 + 20_000
    assert cost_micro({"input_tokens": None, "output_tokens": 1}, model_price("claude-haiku-4-5")) == 5


def test_every_pass_of_a_reply_is_paid_for():
    price = model_price("claude-opus-4-8")
    last = {"input_tokens": 10, "output_tokens": 5}
    first = {"input_tokens": 1000, "output_tokens": 100}
    assert cost_micro({**last, "iterations": [first, last]}, price) == cost_micro(first, price) + cost_micro(
        last, price
    )
    assert cost_micro({**last, "iterations": [last]}, price) == cost_micro(last, price)


tokens = st.integers(0, 2_000_000)


@given(st.sampled_from([*MODELS, "unknown"]), tokens, tokens, tokens, tokens, st.integers(0, 9), st.booleans())
def test_no_reply_within_its_limits_costs_more_than_its_bound(name, fresh, written, read, out, searches, long):
    usage = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_1h_input_tokens": written if long else 0},
        "cache_read_input_tokens": read,
        "output_tokens": out,
        "server_tool_use": {"web_search_requests": searches},
    }
    price = model_price(name)
    bound = worst_case(price, fresh + written + read, out, cached="1h" if long else "5m", searches=searches)
    assert 0 <= cost_micro(usage, price) <= bound


def test_prices_are_light_to_import():
    loaded = "import sys, parhelia_mcp.prices; print([m for m in ('pydantic', 'anyio', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
