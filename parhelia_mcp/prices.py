"""What things cost: one dated table for compute and for models, every row of which `[prices]` can override.

Rates for bounds are rounded up and what is unknown has the highest price there is, so an estimate may be too high
and never too low. All results are whole micro-dollars.

`[prices]` may hold `local_usd_per_hour`, `cpu_core_usd_per_hour`, `memory_gb_usd_per_hour`, the tables
`gpu_usd_per_hour`, `region` (multipliers) and `models`: a model's name to `input`, `output`, `cache_write_5m`,
`cache_write_1h`, `cache_read` (dollars per million tokens) and `web_search` (dollars a search).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

from parhelia_mcp.model import MICRO, Sizes

DATE = "2026-11-23"
COMPUTE_SOURCE = "modal.com/pricing (sandbox rates) and modal.com/docs/guide/region-selection"
MODEL_SOURCE = "platform.claude.com/docs/en/about-claude/pricing"

# Dollars a second, as the vendor lists them.
CPU_CORE = 0.00003942
MEMORY_GB = 0.00000672
GPU = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "RTX-PRO-6000": 0.000842,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
    "B300": 0.001972,
}
GPU_ALIASES = {"A10G": "A10", "A100": "A100-80GB", "H100!": "H100", "B200+": "B300"}  # dearest that the name may get
BROAD_REGIONS = frozenset({"us", "eu", "ap", "uk", "ca", "me", "sa", "af", "mx", "jp", "au"})
BROAD, NARROW = 1.5, 1.75


class ModelPrice(NamedTuple):
    """Micro-dollars per million tokens, and per search."""

    input: int
    output: int
    cache_write_5m: int
    cache_write_1h: int
    cache_read: int
    web_search: int

    def times(self, factor: float) -> ModelPrice:
        return ModelPrice(*(ceil(round(rate * factor, 3)) for rate in self[:5]), self.web_search)


def _price(input_: float, output: float, cache_read: float | None = None) -> ModelPrice:
    """A row from dollars; writes to the cache cost 1.25 and 2 times the input, reads a tenth unless the list differs."""
    read = input_ * 0.1 if cache_read is None else cache_read
    rates = (input_, output, input_ * 1.25, input_ * 2, read)
    return ModelPrice(*(round(rate * MICRO) for rate in rates), web_search=10_000)


MODELS = {
    "claude-fable-5-1": _price(10, 50, 0.25),
    "claude-mythos-5-1": _price(10, 50, 0.25),
    "claude-fable-5": _price(10, 50),
    "claude-mythos-5": _price(10, 50),
    "claude-opus-5-5": _price(4, 20, 0.2),
    "claude-opus-5": _price(5, 25),
    "claude-opus-4-8": _price(5, 25),
    "claude-opus-4-7": _price(5, 25),
    "claude-opus-4-6": _price(5, 25),
    "claude-opus-4-5": _price(5, 25),
    "claude-opus-4-1": _price(15, 75),
    "claude-opus-4": _price(15, 75),
    "claude-sonnet-5-5": _price(2, 10, 0.1),
    "claude-sonnet-5": _price(2, 10),
    "claude-sonnet-4-6": _price(3, 15),
    "claude-sonnet-4-5": _price(6, 22.5),  # the rate of prompts over 200 k tokens
    "claude-sonnet-4": _price(6, 22.5),  # likewise
    "claude-haiku-5-5": _price(0.5, 2.5),  # the rate of prompts over 100 k tokens
    "claude-haiku-4-5": _price(1, 5),
    "claude-3-5-haiku": _price(0.8, 4),
}
FAST = {"claude-opus-4-8": 2.0, "claude-opus-5": 2.0, "claude-opus-5-5": 2.0}  # what `speed: fast` multiplies by
FAST_HIGHEST = 6.0
IN_ONE_COUNTRY = 1.1  # what `inference_geo` multiplies by
_NAME = re.compile(r"(claude-[a-z0-9-]*?)(?:-latest|-20\d{6})?(?:-v\d+(?::\d+)?)?(?:@\w+)?(?:\[1m\])?")


def compute_rate_micro_per_hour(
    provider: str, sizes: Sizes, region: str | None = None, overrides: Mapping[str, Any] | None = None
) -> int:
    """What an hour of a sandbox of these sizes costs at most; an unknown GPU counts as the dearest."""
    table = rates(overrides)
    if provider == "local":
        return ceil(table["local"] * MICRO)
    hourly = sizes.cpu * table["cpu_core"] + sizes.memory_gb * table["memory_gb"]
    hourly += _gpu_usd_per_hour(sizes.gpu, table["gpu"])
    return ceil(round(hourly * region_factor(region, table["region"]) * MICRO, 3))


def rates(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The hourly dollars behind `compute_rate_micro_per_hour`, for readers that import nothing of ours."""
    own = overrides or {}
    gpus = {name: rate * 3600 for name, rate in GPU.items()} | {
        name.upper(): rate for name, rate in own.get("gpu_usd_per_hour", {}).items()
    }
    return {
        "date": DATE,
        "local": own.get("local_usd_per_hour", 0),
        "cpu_core": own.get("cpu_core_usd_per_hour", round(CPU_CORE * 3600, 6)),
        "memory_gb": own.get("memory_gb_usd_per_hour", round(MEMORY_GB * 3600, 6)),
        "gpu": {name: round(rate, 6) for name, rate in gpus.items()},
        "region": {"broad": BROAD, "narrow": NARROW} | own.get("region", {}),
    }


def _gpu_usd_per_hour(gpu: str | None, table: Mapping[str, float]) -> float:
    """What all the GPUs of `NAME` or `NAME:COUNT` cost."""
    if gpu is None:
        return 0.0
    count = gpu.partition(":")[2]
    return gpu_rate(gpu, table)[1] * (int(count) if count.isdecimal() else 1)


def gpu_rate(gpu: str, table: Mapping[str, float]) -> tuple[str, float]:
    """The row that one GPU of `NAME` or `NAME:COUNT` is priced by; the dearest for a name that the table lacks."""
    name = gpu.upper().partition(":")[0]
    row = next((row for row in (name, GPU_ALIASES.get(name, "")) if row in table), max(table, key=table.__getitem__))
    return row, table[row]


def region_factor(region: str | None, table: Mapping[str, float]) -> float:
    """What a region multiplies the price of compute by; the dearest for one that the table lacks."""
    if region is None:
        return 1.0
    return table.get(region, table["broad" if region in BROAD_REGIONS else "narrow"])


def model_price(model: str, overrides: Mapping[str, Any] | None = None) -> ModelPrice:
    """The row of a model under any of its names; the highest of every column for one that the table lacks."""
    own = (overrides or {}).get("models", {})
    base = _plain(model)
    row = MODELS.get(base) or ModelPrice(*(max(column) for column in zip(*MODELS.values(), strict=True)))
    given = own.get(model) or own.get(base)
    if not given:
        return row
    if "input" in given and "output" in given:
        row = _price(given["input"], given["output"])
    return row._replace(**{key: ceil(round(rate * MICRO, 3)) for key, rate in given.items()})


def listed(model: str, overrides: Mapping[str, Any] | None = None) -> bool:
    """Whether the table, or what overrides it, has a row for this model."""
    own = (overrides or {}).get("models", {})
    return _plain(model) in MODELS or model in own or _plain(model) in own


def _plain(model: str) -> str:
    """The table's name of a model: without date, version, cloud prefix and context suffix."""
    start = model.find("claude-")
    match = _NAME.fullmatch(model[max(start, 0) :])
    return match[1] if match else model


def surcharge(model: str, *, fast: bool, one_country: bool) -> float:
    """What the options of a request multiply its price by, at most."""
    return (FAST.get(_plain(model), FAST_HIGHEST) if fast else 1.0) * (IN_ONE_COUNTRY if one_country else 1.0)


def worst_case(
    price: ModelPrice, input_tokens: int, output_tokens: int, *, cached: str = "1h", searches: int = 0
) -> int:
    """The most a request can cost when at most so many tokens go in and come out.

    `cached` is the dearest thing that may happen to the input: "1h", "5m" or "" when nothing is written to the cache.
    """
    each = {"1h": max(price.cache_write_1h, price.input), "5m": max(price.cache_write_5m, price.input)}
    into = each.get(cached, price.input)
    return -(-(input_tokens * into + output_tokens * price.output) // MICRO) + searches * price.web_search


def cost_micro(usage: Mapping[str, Any], price: ModelPrice) -> int:
    """What a finished request costs, from the `usage` of the API; a part of a micro-dollar counts as a whole.

    Where the API worked in several passes, `iterations` lists them all and the totals beside it only the last.
    """
    passes = [one for one in usage.get("iterations") or () if isinstance(one, dict)]
    if passes:
        rest = {name: value for name, value in usage.items() if name != "iterations"}
        return max(cost_micro(rest, price), sum(cost_micro(one, price) for one in passes))

    def count(table: Mapping[str, Any], key: str) -> int:
        return int(table.get(key) or 0)

    split = usage.get("cache_creation") or {}
    long = count(split, "ephemeral_1h_input_tokens")
    short = max(count(usage, "cache_creation_input_tokens") - long, count(split, "ephemeral_5m_input_tokens"))
    total = (
        count(usage, "input_tokens") * price.input
        + count(usage, "output_tokens") * price.output
        + count(usage, "cache_read_input_tokens") * price.cache_read
        + short * price.cache_write_5m
        + long * price.cache_write_1h
    )
    return -(-total // MICRO) + count(usage.get("server_tool_use") or {}, "web_search_requests") * price.web_search
