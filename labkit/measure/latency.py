"""Latencies in figures and in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_IN_A_ROW = 10  # requests; fewer do not tell what is usual, nor that it has come back
_FAILED = 1e9  # ms; slower than any answer


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of requests, in milliseconds; NaN where there is none.

    Attributes:
        count: How many requests were answered.
        unanswered: How many had no answer when they were cancelled: their wait counts.
    """

    count: int
    p50: float
    p99: float
    max: float
    unanswered: int

    def __str__(self) -> str:
        """With the count that the figures come from."""
        if math.isnan(self.p50):
            return "none completed"
        never = f", and {self.unanswered:,} that had no answer" if self.unanswered else ""
        times = f"p50 {ms(self.p50)}, p99 {ms(self.p99)}, max {ms(self.max)} ms"
        return f"{times} (n={self.count:,}{never})"


def ms(value: float) -> str:
    """A time in milliseconds, with three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def served_as_before(
    requests: pd.DataFrame, victim: str, first: float
) -> tuple[Callable[[float], float], list[str]]:
    """Find out when each offer is served again as it was before the first pause.

    Of ten requests in a row, the median may be 1.5 times what it was (else all are in a queue), and
    so may the 90th percentile (else a few are). A failure counts as slow. An offer that had fewer
    than ten requests before does not tell; if the victim had, nothing is known.

    Args:
        requests: As in `Run.requests`.
        victim: The first offer.
        first: When the first pause began, in seconds.

    Returns:
        A function of the end of a pause (s): from when on (s) all are served so; 0 if no request
        came after it, infinite if they are never. And the offers that do not tell.
    """
    offers, unknown = [], []
    for offer, mine in requests.groupby("offer"):
        came, took = mine.intended_s, mine.latency_ms.where(mine.error.isna(), _FAILED)
        earlier = took[came + mine.latency_ms / 1e3 < first]
        if (known := len(earlier) >= _IN_A_ROW) or offer == victim:
            in_a_row = took.rolling(_IN_A_ROW)
            half, most = (in_a_row.quantile(q) <= 1.5 * earlier.quantile(q) for q in (0.5, 0.9))
            offers.append((came.max(), came.shift(_IN_A_ROW - 1)[half & most & known]))
        else:
            unknown.append(str(offer))

    def again(end: float) -> float:
        waits = (min(well[well >= end], default=math.inf) for last, well in offers if last >= end)
        return max(waits, default=0.0)

    return again, unknown
