def compute_rate_micro_per_hour(provider, sizes, region, overrides):
    return round(float(overrides.get("local_usd_per_hour", 0)) * 1e6) if provider == "local" else 1000000


def rates(overrides):
    return {}
