"""Latencies in figures and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
