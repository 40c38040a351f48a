"""A histogram of times that can run for months: a few hundred counters, whatever is added."""

from __future__ import annotations

import math
from collections import Counter

_FINE = 32  # buckets for each doubling: a percentile is right within 3%


class Histogram:
    """Counts times; says how many, the percentiles, and the longest."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count, self.max = 0, 0.0

    def add(self, value: float) -> None:
        """Count one time, above or equal to 0."""
        mantissa, exponent = math.frexp(max(value, 1e-9))
        self._counts[exponent * _FINE + int((2 * mantissa - 1) * _FINE)] += 1
        self.count += 1
        self.max = max(self.max, value)

    def percentile(self, percent: float) -> float:
        """The nearest rank's time: of a hundred, p99 is the 99th. NaN if nothing was counted."""
        left = math.ceil(percent / 100 * self.count)
        for bucket, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                exponent, part = divmod(bucket, _FINE)
                return min(self.max, math.ldexp((part + 1) / _FINE + 1, exponent - 1))
        return math.nan
