"""What a session of some sizes can cost at most, and by which prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from parhelia_mcp import billing, budget, follow, prices, sessions, terms
from parhelia_mcp.context import Context
from parhelia_mcp.errors import Refused
from parhelia_mcp.model import Sizes, dollars, micro


class Request(BaseModel, extra="forbid"):
    """Price sizes before anything is submitted."""

    gpu: Annotated[str | None, Field(description="GPU type")] = None
    cpu: Annotated[float | None, Field(gt=0, le=512, allow_inf_nan=False, description="Cores")] = None
    memory: Annotated[float | None, Field(gt=0, le=4096, allow_inf_nan=False, description="GiB")] = None
    timeout_hours: Annotated[float | None, Field(gt=0, le=720, allow_inf_nan=False, description="Time limit")] = None
    max_usd: Annotated[float | None, Field(ge=0, le=1e9, allow_inf_nan=False, description="Money limit")] = None
    provider: Annotated[Literal["local", "modal"] | None, Field(description="Only this provider")] = None
    region: Annotated[str | None, Field(description="Region on modal")] = None
    model: Annotated[str | None, Field(description="Model of the agent")] = None


class Price(BaseModel):
    """One number behind an offer, and who said it when: `[prices]`, the provider itself, or our table."""

    what: str
    usd_per_hour: float | None = None
    factor: float | None = None  # of a region
    source: str
    date: str | None = None


class Offer(BaseModel):
    """The most it can cost on one provider: compute for the whole time, and tokens up to the task's limit."""

    provider: str
    cpu: float
    memory_gb: float | None
    gpu: str | None
    region: str | None
    usd_per_hour: float
    compute_usd: float
    tokens_usd: float
    prices: list[Price]


class Rates(BaseModel):
    """What a million tokens cost in dollars."""

    model: str
    listed: bool  # False: the table does not know it, so the highest of every column
    input: float
    output: float
    cache_write_5m: float
    cache_write_1h: float
    cache_read: float


class Result(BaseModel):
    """The numbers beside `offers` are of the first: the provider asked for, or the one that is used unasked."""

    estimate_usd: float
    compute_usd: float
    tokens_usd: float
    remaining_usd: float  # after it
    fits: bool  # into the budget; `note` says where the provider lacks the GPU
    note: str | None
    next: str
    offers: list[Offer]
    hours: float
    model: Rates
    prices_date: str  # of our table
    prices_source: str
    overridden: list[str]  # keys of [prices] that replace rows of the table


def run(ctx: Context, request: Request) -> Result:
    """Price the sizes for their whole time, on every provider unless one is named, whether they are to be had or not.

    A provider that has prices of its own and an account here is asked for them, once a day.
    """
    settings = ctx.loaded.config
    others = [name for name in terms.PROVIDERS if name != settings.provider]
    wanted = [request.provider] if request.provider else [settings.provider, *others]
    for provider in wanted:
        billing.refresh(ctx, provider)
    hours = _hours(ctx, request, wanted[0])
    asked = [_asked(ctx, request, provider, hours) for provider in wanted]
    offers = [_offer(ctx, provider, each) for provider, each in zip(wanted, asked, strict=True)]
    kind = asked[0].sizes.gpu
    absent = terms.gpu_refusal(ctx, wanted[0], kind) if kind else None
    refusal = _refused(ctx, request, wanted[0], asked[0])
    warning = refusal or absent
    total = asked[0].cost.total
    return Result(
        estimate_usd=dollars(total),
        compute_usd=offers[0].compute_usd,
        tokens_usd=offers[0].tokens_usd,
        remaining_usd=dollars(budget.standing(ctx).remaining - total),
        fits=refusal is None,
        note=warning.message if warning else None,
        next=warning.hint if warning else "parhelia submit with the same sizes",
        offers=offers,
        hours=hours,
        model=_rates(request.model or settings.agent.model, settings.prices),
        prices_date=prices.DATE,
        prices_source=f"{prices.COMPUTE_SOURCE}; {prices.MODEL_SOURCE}",
        overridden=sorted(key for key, value in settings.prices.items() if value),
    )


def _sizes(ctx: Context, request: Request, provider: str) -> tuple[Sizes, str | None]:
    region = request.region or ctx.loaded.config.modal.region if provider == "modal" else None
    return terms.sizes_for(ctx, provider, request.cpu, request.memory, request.gpu, check_gpu=False), region


def _hours(ctx: Context, request: Request, provider: str) -> float:
    """As submit would give: those asked for, else what the money of an agent's task lasts for."""
    sizes, region = _sizes(ctx, request, provider)
    unasked = sessions.unasked_time(ctx, provider, sizes, region, request.max_usd, True)
    return request.timeout_hours or unasked / 3600


def _asked(ctx: Context, request: Request, provider: str, hours: float) -> sessions.Asked:
    settings = ctx.loaded.config
    sizes, region = _sizes(ctx, request, provider)
    rate = prices.compute_rate_micro_per_hour(provider, sizes, region, billing.prices_for(ctx, provider))
    compute = follow.reserve_for(rate, hours * 3600)
    limit = micro(settings.budget.per_task_usd if request.max_usd is None else request.max_usd)
    cost = sessions.Cost(rate, compute, max(limit - compute, 0))
    return sessions.Asked(sizes, region, hours * 3600, request.max_usd, cost)


def _offer(ctx: Context, provider: str, asked: sessions.Asked) -> Offer:
    return Offer(
        provider=provider,
        cpu=asked.sizes.cpu,
        memory_gb=asked.sizes.memory_gb or None,
        gpu=asked.sizes.gpu,
        region=asked.region,
        usd_per_hour=dollars(asked.cost.rate),
        compute_usd=dollars(asked.cost.compute),
        tokens_usd=dollars(asked.cost.tokens),
        prices=list(_prices(ctx, provider, asked)),
    )


def _prices(ctx: Context, provider: str, asked: sessions.Asked) -> Iterator[Price]:
    """The numbers that the offer is made of."""
    own, said = ctx.loaded.config.prices, billing.known(ctx, provider)
    table = prices.rates(billing.prices_for(ctx, provider))

    def who(*path: str) -> dict[str, Any]:
        if _at(own, path):
            return {"source": "[prices]"}
        if said and _at(said.prices, path):
            return {"source": said.source, "date": said.at}
        return {"source": prices.COMPUTE_SOURCE, "date": prices.DATE}

    if provider == "local":
        source = "[prices]" if table["local"] else "not priced: [prices] local_usd_per_hour"
        yield Price(what="this machine", usd_per_hour=table["local"], source=source)
        return
    yield Price(what="core", usd_per_hour=table["cpu_core"], **who("cpu_core_usd_per_hour"))
    yield Price(what="GiB", usd_per_hour=table["memory_gb"], **who("memory_gb_usd_per_hour"))
    if asked.sizes.gpu:
        name, rate = prices.gpu_rate(asked.sizes.gpu, table["gpu"])
        yield Price(what=name, usd_per_hour=rate, **who("gpu_usd_per_hour", name))
    if asked.region:
        factor = prices.region_factor(asked.region, table["region"])
        yield Price(what=f"region {asked.region}", factor=factor, **who("region", asked.region))


def _at(table: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        table = table.get(key) or {}
    return table


def _refused(ctx: Context, request: Request, provider: str, asked: sessions.Asked) -> Refused | None:
    """What submit would say to this, or None where it would start."""
    try:
        sessions.worst_case(ctx, provider, asked.sizes, asked.region, asked.timeout_s, request.max_usd, True)
    except Refused as refusal:
        return refusal
    return sessions.refusal(ctx, provider, asked)


def _rates(model: str | None, overrides: Mapping[str, Any]) -> Rates:
    price = prices.model_price(model or "", overrides)
    columns = {name: dollars(getattr(price, name)) for name in Rates.model_fields if hasattr(price, name)}
    return Rates(model=model or "any model", listed=prices.listed(model or "", overrides), **columns)
