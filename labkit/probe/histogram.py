"""A histogram of times that can run for months: a few hundred counters, whatever is added."""

import math
from collections import Counter

_FINE = 33  # buckets for each factor of e: a percentile is right within 3%


class Histogram:
    """Counts times; says their percentiles, and the longest."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.max = 0.0

    def add(self, value: float) -> None:
        """Count one time, above or equal to 0."""
        self._counts[math.ceil(_FINE * math.log(max(value, 1e-9)))] += 1
        self.max = max(self.max, value)

    def percentile(self, percent: float) -> float:
        """The nearest rank's time: of a hundred, p99 is the 99th. NaN if nothing was counted."""
        left = math.ceil(percent / 100 * self._counts.total())
        for bucket, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return min(self.max, math.exp(bucket / _FINE))
        return math.nan
