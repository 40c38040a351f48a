"""What one measurement saw: the Run, its figures and its tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.measure.load import UNANSWERED
from labkit.measure.machine import Machine, served_as_before
from labkit.probe import Stall

if TYPE_CHECKING:
    import pandas as pd

DEBUG = "asyncio's debug mode was on"
_WAKE_UPS = 5  # of a request on its way: by the schedule, by the server, by each answer
_AT_ONCE = 2  # of them that may be late in one request


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of requests, in milliseconds; NaN where there is none."""

    count: int  # requests that were answered
    p50: float
    p99: float
    max: float
    unanswered: int  # requests without an answer when they were cancelled: their wait counts

    def __str__(self) -> str:
        if math.isnan(self.p50):
            return "none completed"
        never = f", and {self.unanswered:,} that had no answer" if self.unanswered else ""
        times = f"p50 {ms(self.p50)}, p99 {ms(self.p99)}, max {ms(self.max)} ms"
        return f"{times} (n={self.count:,}{never})"


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What one measurement saw. Second 0 is when the load began.

    requests: A row for each, in the order of arrival. Columns: offer, intended_s, started_s, error
        (None if it completed), latency_ms (from the intended start), service_ms (from the actual).
    spans: A row for each. Columns: request (a row of `requests`, or -1), span, start_s, span_ms.
    gauges: A row for each reading (index: seconds), a column for each gauge. A reading holds until
        the next: weigh them by time, as `share_of_time` does.
    lag: A row for each 20 ms in which the loop was busy. Columns: at_s, lag_ms (the longest that a
        ready callback can have waited).
    """

    name: str  # the scenario's
    offers: tuple[str, ...]
    seconds: float  # for how long requests were offered
    invalid: str  # why no time of this run is the service's, in words; "" if all are
    stalls: tuple[Stall, ...]  # each iteration of the loop that took longer than `threshold_ms`
    warnings: tuple[str, ...]  # what asyncio and a pool logged: slow callbacks, in debug mode
    requests: pd.DataFrame
    spans: pd.DataFrame
    gauges: pd.DataFrame
    lag: pd.DataFrame
    machine: Machine = field(default_factory=Machine)  # its pauses are in this run's seconds
    threshold_ms: float = 0.0

    @property
    def victim(self) -> str:
        """The first offer: the innocent traffic that suffers."""
        return self.offers[0]

    @property
    def noise_ms(self) -> float:
        """How late the machine woke a thread that only sleeps (p99), apart from its pauses."""
        return self.machine.late(0.99)

    @property
    def noise_max_ms(self) -> float:
        """How late the machine was at the worst, pauses included."""
        return max([self.machine.late(1), *(1e3 * (end - at) for at, end in self.machine.pauses)])

    @cached_property
    def undisturbed(self) -> Run:
        """This run as a machine that is never late may have shown it: the other end of each figure.

        What met a pause of the machine is left out, and what came while the service caught up: as
        long again, and until it serves each offer as before (see `served_as_before`); of an offer
        that does not tell, all that came later. So are stalls that were too long only because the
        machine was late. Every time becomes shorter. A request is woken about five times, so one in
        a hundred meets what comes in a five-hundredth of the time: the p99 becomes shorter by twice
        (as two may be late) the lateness of that share, and so on for every rank.
        """
        import numpy as np

        pauses = [(start, end) for start, end in self.machine.pauses if end > 0]
        first = min((start for start, _ in pauses), default=math.inf)
        again, unknown = served_as_before(self.requests, self.victim, first)
        made_up = [(start, max(2 * end - start, again(end))) for start, end in pauses]
        edges = sorted({at for pause in made_up for at in pause})
        gauges = self.gauges.reindex(self.gauges.index.union(edges), method="ffill")

        def met_a_pause(start: Any, end: Any) -> Any:
            met = np.zeros_like(start, dtype=bool)
            for begin, over in made_up:
                met = met | ((start < over) & (end >= begin))
            return met

        def shorten(times: pd.Series) -> pd.Series:
            """The shortest time loses the least lateness, the longest time the most."""
            rarer = (1 - times.rank(method="first") / (len(times) + 1)) / _WAKE_UPS
            return (times - _AT_ONCE * self.machine.late_in(1 - rarer.fillna(0))).clip(lower=0)

        def shorter(table: pd.DataFrame, time: str, kind: Any) -> pd.DataFrame:
            return table.assign(**{time: table.groupby(kind)[time].transform(shorten)})

        later = self.requests.intended_s >= first
        told = self.requests[~(later & self.requests.offer.isin(unknown))]
        left = replace(self, requests=told, gauges=gauges).without(met_a_pause)
        requests = shorter(left.requests, "latency_ms", "offer")
        added, late = left.requests.latency_ms - requests.latency_ms, self.machine.late(1)
        return replace(
            left,
            stalls=tuple(s for s in left.stalls if s.duration_ms - late > self.threshold_ms),
            requests=requests.assign(service_ms=(requests.service_ms - added).clip(lower=0)),
            spans=shorter(left.spans, "span_ms", "span"),
            lag=shorter(left.lag, "lag_ms", lambda row: "lag"),
        )

    def without(self, met: Callable[[Any, Any], Any]) -> Run:
        """This run without what was `met(start, end)` (s); gauges are NaN then."""

        def rest(table: pd.DataFrame, start: Any, time: str) -> pd.DataFrame:
            return table[~met(start, start + table[time].to_numpy() / 1e3)]

        requests = rest(self.requests, self.requests.intended_s.to_numpy(), "latency_ms")
        spans = rest(self.spans, self.spans.start_s.to_numpy(), "span_ms")
        at = self.gauges.index
        return replace(
            self,
            stalls=tuple(s for s in self.stalls if not met(s.start_s, _end_of(s))),
            requests=requests,
            spans=spans[spans.request.isin([-1, *requests.index])],
            gauges=self.gauges[~met(at, at)].reindex(at),
            lag=rest(self.lag, (self.lag.at_s - self.lag.lag_ms / 1e3).to_numpy(), "lag_ms"),
        )

    def share_of_time(self, gauge: str, test: Callable[[float], bool]) -> float:
        """For which share of the load's time (0 to 1) a gauge passed a test; NaN if none is known.

        A reading holds until the next one, however late that comes: a frozen loop reads nothing.
        Raises LabError if there is no such gauge.
        """
        if gauge not in self.gauges:
            raise LabError(
                f"There is no gauge {gauge!r} in {self.name!r}. Expected in its scenario: "
                f"load.gauge({gauge!r}, ...)."
            )
        starts = self.gauges.index.to_series()
        lasted = starts.shift(-1, fill_value=max(self.seconds, starts.iloc[-1])) - starts
        known = self.gauges[gauge].dropna()
        passed, total = known.index[known.map(test).astype(bool)], lasted[known.index].sum()
        return float(lasted[passed].sum() / total) if total else math.nan

    def requests_of(self, offer: str | None) -> pd.DataFrame:
        """The requests of an offer; of all, if none is named.

        Raises LabError if there is no such offer.
        """
        if offer and offer not in self.offers:
            raise LabError(
                f"There is no offer {offer!r} in {self.name!r}. "
                f"Expected one of: {', '.join(sorted(self.offers))}."
            )
        return self.requests[self.requests.offer == offer] if offer else self.requests

    def latency(self, offer: str | None = None) -> Latency:
        """Latency of the answered requests of an offer (the victim's, if none is named).

        Percentiles are interpolated between ranks, as numpy does by default. A request that
        failed is counted by `failed`, not here: a quick failure is no quick answer. One that was
        cancelled, or was still waiting when the run ended, has waited at least so long: it counts
        as that, and as no quicker than the slowest that was answered.
        """
        import numpy as np

        mine = self.requests_of(offer or self.victim)
        answered = mine.latency_ms[mine.error.isna()].to_numpy()
        waiting = mine.latency_ms[mine.error.str.startswith(UNANSWERED, na=False)].to_numpy()
        times = np.append(answered, waiting.clip(min=answered.max(initial=0)))
        p50, p99, most = np.quantile(times, [0.5, 0.99, 1]) if len(times) else [math.nan] * 3
        return Latency(len(answered), float(p50), float(p99), float(most), len(waiting))

    def failed(self, offer: str | None = None, refusal: str = "") -> int:
        """How many requests of an offer (of all, if none is named) did not complete.

        Those with an error that begins with `refusal` do not count, if one is given.
        """
        errors = self.requests_of(offer).error.dropna()
        return len(errors[~errors.str.startswith(refusal)] if refusal else errors)

    def figures(self, offer: str | None = None) -> dict[str, Any]:
        """The run in plain numbers, for a scoreboard.

        The times are one offer's (None where no request completed), the rest is of all.
        """
        of = self.latency(offer)
        times = [round(time, 3) if of.count else None for time in (of.p50, of.p99, of.max)]
        return {
            "name": self.name,
            "requests": len(self.requests),
            "errors": self.failed(),
            **dict(zip(("p50_ms", "p99_ms", "max_ms"), times, strict=True)),
            "stalls": len(self.stalls),
        }

    def hurt(self, *stalls: Stall) -> tuple[int, float]:
        """How many requests stalls held up (their own, too), and how long (ms) these waited."""
        came, waited = self.requests.intended_s, 0.0 * self.requests.intended_s
        ended = came + self.requests.latency_ms / 1e3
        for it in stalls:
            waited += (ended.clip(upper=_end_of(it)) - came.clip(lower=it.start_s)).clip(lower=0)
        return int((waited > 0).sum()), 1e3 * float(waited.sum())

    @property
    def stalls_in_words(self) -> str:
        """The loop's stalls in words."""
        if not self.stalls:
            return "no stall"
        n, longest = len(self.stalls), ms(max(stall.duration_ms for stall in self.stalls))
        return f"{n} stalls, the longest {longest} ms" if n > 1 else f"1 stall of {longest} ms"

    def __repr__(self) -> str:
        errors = self.requests.error.value_counts()
        kinds = " and others" if len(errors) > 1 else ""
        failed = f", {errors.sum():,} failed ({errors.index[0]}{kinds})" if len(errors) else ""
        invalid = f"; {self.invalid}: these are not your service's times" if self.invalid else ""
        return (
            f"{self.name}: {len(self.requests):,} requests{failed}; {self.victim} "
            f"{self.latency()}; {self.stalls_in_words}{invalid}"
        )


def _end_of(stall: Stall) -> float:
    return stall.start_s + stall.duration_ms / 1e3


def ms(value: float) -> str:
    """A time in milliseconds, with three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
