"""Three alerts on the service's metrics, with thresholds from a healthy run's own figures."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

# What each figure is in Prometheus' own language, over the last minute.
QUERIES = {
    "loop lag, p99 (s)": "histogram_quantile(0.99, rate(asyncio_loop_lag_seconds_bucket[1m]))",
    "held by stalls (share)": "rate(asyncio_loop_stalled_seconds_total[1m])",
    "acquire wait, p99 (s)": (
        "histogram_quantile(0.99, rate(db_client_connection_wait_time_seconds_bucket[1m]))"
    ),
}
# Times above the healthy figure. Below the least nobody is to be called, however small that figure
# is; above the most somebody is, whatever it was.
FACTOR = 3
LEAST = dict(zip(QUERIES, (0.02, 0.02, 0.01), strict=True))
MOST = 0.3

Samples = dict[tuple[str, str], float]  # of a metric and its label `le`; other labels added up


def figures(first: str, last: str) -> dict[str, float]:
    """What the three queries give for the time between two scrapes.

    Args:
        first: The text of `/metrics` at the beginning.
        last: The same at the end.
    """
    begun, ended = _read(first), _read(last)
    grown = {key: value - begun.get(key, 0.0) for key, value in ended.items()}
    stalled = grown.get(("asyncio_loop_stalled_seconds_total", ""), 0.0)
    values = (
        _quantile(0.99, grown, "asyncio_loop_lag_seconds_bucket"),
        stalled / grown["asyncio_loop_watched_seconds_total", ""],
        _quantile(0.99, grown, "db_client_connection_wait_time_seconds_bucket"),
    )
    return dict(zip(QUERIES, values, strict=True))


def thresholds(healthy: dict[str, float]) -> dict[str, float]:
    """For each figure, what to alert above."""
    return {name: min(max(FACTOR * it, LEAST[name]), MOST) for name, it in healthy.items()}


def unhealthy(seen: dict[str, float]) -> list[str]:
    """Those that are too high for a healthy run: `FACTOR` times as much is above `MOST`."""
    return [f"{name} {value:.2g}" for name, value in seen.items() if FACTOR * value > MOST]


def fired(seen: dict[str, float], limits: dict[str, float]) -> list[str]:
    """The figures that are above their thresholds."""
    return [name for name, limit in limits.items() if seen[name] > limit]


def _read(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, sample.labels.get("le", "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


def _quantile(q: float, grown: Samples, name: str) -> float:
    """As Prometheus' histogram_quantile: interpolated within the bucket, 0 of nothing."""
    counts = sorted((float(le), count) for (metric, le), count in grown.items() if metric == name)
    rank, lower, below = q * counts[-1][1], 0.0, 0.0
    for upper, count in counts:
        if count >= rank and count > below:
            inside = (rank - below) / (count - below)
            return lower if math.isinf(upper) else lower + inside * (upper - lower)
        lower, below = upper, count
    return 0.0
