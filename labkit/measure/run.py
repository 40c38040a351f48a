"""What one measurement saw: the Run, its figures and its frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.measure.load import Reading, Request, Span
from labkit.measure.machine import Machine
from labkit.probe import Stall

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of requests, in milliseconds; NaN where there is none.

    Attributes:
        count: How many requests were answered.
        unanswered: How many were not when they were cancelled: they count with their wait.
    """

    count: int
    p50: float
    p99: float
    max: float
    unanswered: int = 0

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


@dataclass(frozen=True)
class Run:
    """What one measurement saw. Second 0 is when the load began.

    Attributes:
        name: The scenario's name.
        victim: The first offer: the innocent traffic that suffers.
        seconds: For how long requests were offered.
        debug: Whether asyncio's debug mode was on: then no latency here is the service's.
        traced: Whether a tracer, a debugger or a profiler was on: the same.
        machine: How late the machine was by itself meanwhile. Its pauses are in this run's seconds.
        stalls: Every iteration of the loop above the threshold.
        warnings: What asyncio logged meanwhile: slow callbacks, if debug mode was on.
    """

    name: str
    victim: str
    seconds: float
    debug: bool
    stalls: tuple[Stall, ...]
    warnings: tuple[str, ...]
    _requests: list[Request] = field(repr=False)
    _spans: list[Span] = field(repr=False)
    _readings: list[Reading] = field(repr=False)
    _lag: list[tuple[float, float]] = field(repr=False)
    machine: Machine = field(default_factory=Machine, repr=False)
    traced: bool = False

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row for each request, in the order of arrival.

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
        """A row for each span.

        Columns: request (a row of `requests`, or -1), span, start_s, span_ms.
        """
        import pandas as pd

        rows = [(s.request, s.name, s.start, 1e3 * s.seconds) for s in self._spans]
        return pd.DataFrame(rows, columns=["request", "span", "start_s", "span_ms"])

    @cached_property
    def gauges(self) -> pd.DataFrame:
        """A row for each reading (index: seconds), a column for each gauge.

        A reading holds until the next: weigh them by time, as `share_of_time` does.
        """
        import pandas as pd

        rows = [(r.at, r.name, r.value) for r in self._readings]
        frame = pd.DataFrame(rows, columns=["at_s", "gauge", "value"])
        frame["at_s"] = frame.at_s.round(2)
        table = frame.pivot_table(index="at_s", columns="gauge", values="value", aggfunc="last")
        return table.ffill()  # gauges that were read together may round to two moments

    @cached_property
    def lag(self) -> pd.DataFrame:
        """A row for each 20 ms in which the loop was busy.

        Columns: at_s, lag_ms (the longest that a ready callback can have waited).
        """
        import pandas as pd

        return pd.DataFrame(self._lag, columns=["at_s", "lag_ms"])

    @property
    def lag_max_ms(self) -> float:
        """For how long the loop was busy with callbacks at the most, in one iteration."""
        return max((lag for _, lag in self._lag), default=0.0)

    @property
    def noise_ms(self) -> float:
        """How late the machine woke a thread that only sleeps (p99), apart from its pauses."""
        return self.machine.late(0.99)

    @property
    def noise_max_ms(self) -> float:
        """How late the machine was at the worst, pauses included."""
        pauses = [1e3 * (end - start) for start, end in self.machine.pauses]
        return max([self.machine.late(1), *pauses])

    @property
    def idle(self) -> float:
        """The share of the machine's processors that nobody used meanwhile."""
        return self.machine.idle

    @property
    def invalid(self) -> str:
        """Why no time of this run is the service's, in words; "" if all are."""
        tracer = "a tracer or a profiler was on" if self.traced else ""
        return "asyncio's debug mode was on" if self.debug else tracer

    @cached_property
    def undisturbed(self) -> Run:
        """This run as a machine that is never late may have shown it; see `undisturbed`."""
        from labkit.measure.undisturbed import undisturbed

        return undisturbed(self)

    def share_of_time(self, gauge: str, test: Callable[[float], bool]) -> float:
        """For which share of the load's time (0 to 1) a gauge passed a test.

        A reading holds until the next one, however late that comes: a frozen loop reads nothing.

        Raises:
            LabError: The scenario has no such gauge.
        """
        readings = [r for r in self._readings if r.name == gauge]
        if not readings:
            raise LabError(
                f"There is no gauge {gauge!r} in {self.name!r}. Expected in its scenario: "
                f"load.gauge({gauge!r}, ...)."
            )
        ends = [*(r.at for r in readings[1:]), max(self.seconds, readings[-1].at)]
        spent = [(end - r.at, r.value) for r, end in zip(readings, ends, strict=True)]
        known = [(time, value) for time, value in spent if not math.isnan(value)]
        return sum(time for time, value in known if test(value)) / sum(time for time, _ in known)

    def latency(self, offer: str | None = None) -> Latency:
        """Latency of the answered requests of an offer (the victim's, if none is named).

        Percentiles are interpolated between ranks, as numpy does by default. A request that
        failed is counted by `failed`, not here: a quick failure is no quick answer. One that was
        cancelled, or was still waiting when the run ended, has waited at least so long: it counts
        as that, and as no quicker than the slowest that was answered.

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
        mine = [(1e3 * (r.finished - r.intended), r) for r in self._requests if r.offer == name]
        answered = [time for time, r in mine if r.error is None]
        unanswered = [time for time, r in mine if r.unanswered and time == time]
        if not answered and not unanswered:
            return Latency(0, math.nan, math.nan, math.nan)
        slowest = max(answered, default=0.0)
        times = [*answered, *(max(time, slowest) for time in unanswered)]
        p50, p99 = np.percentile(times, [50, 99])
        return Latency(len(answered), float(p50), float(p99), max(times), len(unanswered))

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
    def stalls_in_words(self) -> str:
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
            f"{self.latency()}; {self.stalls_in_words}"
            + (f"; {self.invalid}: these are not your service's times" if self.invalid else "")
        )

    __repr__ = __str__
