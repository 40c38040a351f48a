"""What one measurement saw: the Run, its figures and its frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.measure.load import Reading, Request, Span
from labkit.probe import Stall

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of completed requests, in milliseconds; NaN where none completed."""

    count: int
    p50: float
    p99: float
    max: float

    def __str__(self) -> str:
        """With the count that the figures come from."""
        return f"p50 {ms(self.p50)}, p99 {ms(self.p99)}, max {ms(self.max)} ms (n={self.count:,})"


def ms(value: float) -> str:
    """A time in milliseconds, with three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


@dataclass(frozen=True)
class Run:
    """What one measurement saw. Second 0 is when the load began.

    Attributes:
        name: The scenario's name.
        victim: The first offer: the innocent traffic that suffers.
        seconds: For how long requests were offered.
        debug: Whether asyncio's debug mode was on: then no latency here is the service's.
        noise_ms: How late the machine woke a sleeping thread (p99): no time is surer than that.
        noise_max_ms: How late it did so at the worst.
        idle: The share of the machine's processors that nobody used meanwhile.
        stalls: Every iteration of the loop above the threshold.
        warnings: What asyncio logged meanwhile: slow callbacks, if debug mode was on.
    """

    name: str
    victim: str
    seconds: float
    debug: bool
    noise_ms: float
    stalls: tuple[Stall, ...]
    warnings: tuple[str, ...]
    _requests: list[Request] = field(repr=False)
    _spans: list[Span] = field(repr=False)
    _readings: list[Reading] = field(repr=False)
    _lag: list[tuple[float, float]] = field(repr=False)
    noise_max_ms: float = 0.0
    idle: float = 1.0

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row a request, in the order of arrival.

        Columns: offer, intended_s, started_s, latency_ms (from the intended start), service_ms
        (from the actual start), error (None if it completed).
        """
        import pandas as pd

        frame = pd.DataFrame(
            [(r.offer, r.intended, r.started, r.finished, r.error) for r in self._requests],
            columns=["offer", "intended_s", "started_s", "finished_s", "error"],
        )
        frame["latency_ms"] = 1e3 * (frame.finished_s - frame.intended_s)
        frame["service_ms"] = 1e3 * (frame.finished_s - frame.started_s)
        return frame.drop(columns="finished_s")

    @cached_property
    def spans(self) -> pd.DataFrame:
        """A row a span. Columns: request (a row of `requests`, or -1), span, start_s, span_ms."""
        import pandas as pd

        rows = [(s.request, s.name, s.start, 1e3 * s.seconds) for s in self._spans]
        return pd.DataFrame(rows, columns=["request", "span", "start_s", "span_ms"])

    @cached_property
    def gauges(self) -> pd.DataFrame:
        """A row a moment (index: seconds), a column a gauge, which holds until its next reading."""
        import pandas as pd

        rows = [(r.at, r.name, r.value) for r in self._readings]
        frame = pd.DataFrame(rows, columns=["at_s", "gauge", "value"])
        frame["at_s"] = frame.at_s.round(2)
        table = frame.pivot_table(index="at_s", columns="gauge", values="value", aggfunc="last")
        return table.ffill()  # two gauges that were read in one turn may round to two moments

    @cached_property
    def lag(self) -> pd.DataFrame:
        """A row for each 20 ms in which the loop was busy.

        Columns: at_s, lag_ms (the longest that a ready callback can have waited).
        """
        import pandas as pd

        return pd.DataFrame(self._lag, columns=["at_s", "lag_ms"])

    @property
    def lag_max_ms(self) -> float:
        """The longest the loop was busy without a look at anybody else."""
        return max((lag for _, lag in self._lag), default=0.0)

    def latency(self, offer: str | None = None) -> Latency:
        """Latency of the completed requests of an offer (the victim's, if none is named).

        Percentiles are interpolated between ranks, as numpy does by default. A failed request is
        counted by `failed`, not here: a quick failure is no quick answer.

        Raises:
            LabError: There is no such offer.
        """
        import numpy as np

        name = offer or self.victim
        if name not in (known := {r.offer for r in self._requests}):
            raise LabError(
                f"There is no offer {name!r} in {self.name!r}. "
                f"Expected one of: {', '.join(sorted(known))}."
            )
        times = [
            1e3 * (r.finished - r.intended)
            for r in self._requests
            if r.offer == name and r.error is None
        ]
        if not times:
            return Latency(0, *[float("nan")] * 3)
        p50, p99 = np.percentile(times, [50, 99])
        return Latency(len(times), float(p50), float(p99), max(times))

    def failed(self, offer: str | None = None) -> int:
        """How many requests of an offer (of all, if none is named) did not complete."""
        return sum(r.error is not None and offer in (None, r.offer) for r in self._requests)

    def figures(self, offer: str | None = None) -> dict[str, Any]:
        """The run in plain numbers, for a scoreboard.

        The times are one offer's (None where no request completed), the rest is of all.
        """
        latency = self.latency(offer)
        times = {"p50_ms": latency.p50, "p99_ms": latency.p99, "max_ms": latency.max}
        return {
            "name": self.name,
            "requests": len(self._requests),
            "errors": self.failed(),
            **{name: round(time, 3) if latency.count else None for name, time in times.items()},
            "stalls": len(self.stalls),
            "lag_max_ms": round(self.lag_max_ms, 3),
        }

    def hurt(self, stall: Stall) -> tuple[int, float]:
        """How many requests a stall held up, and for how long (ms) they waited in all for it."""
        begin, end = stall.start_s, stall.start_s + stall.duration_ms / 1e3
        waits = [min(end, r.finished) - max(begin, r.intended) for r in self._requests]
        held = [wait for wait in waits if wait > 0]
        return len(held), 1e3 * sum(held)

    @property
    def held(self) -> str:
        """The loop's stalls in words."""
        longest = ms(max((stall.duration_ms for stall in self.stalls), default=0.0))
        several = f"{len(self.stalls)} stalls, the longest {longest} ms"
        return {0: "no stall", 1: f"1 stall of {longest} ms"}.get(len(self.stalls), several)

    def __str__(self) -> str:
        """One line."""
        errors = Counter(r.error for r in self._requests if r.error is not None)
        failed = f", {errors.total():,} failed ({errors.most_common(1)[0][0]})" if errors else ""
        return (
            f"{self.name}: {len(self._requests):,} requests{failed}; {self.victim} "
            f"{self.latency()}; {self.held}"
            + ("; DEBUG MODE WAS ON: these are not your service's latencies" * self.debug)
        )

    __repr__ = __str__
