"""A run as a machine that is never late may have shown it: the other end of each figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from labkit.measure.load import Reading, Request
from labkit.measure.run import Run

_WAKE_UPS = 5  # of a request on its way: by the schedule, by the server, by each answer
_AT_ONCE = 2  # of them that may be late in one request

T = TypeVar("T")


def undisturbed(run: Run) -> Run:
    """Take off a run what the machine can have added to it.

    What met a pause of the machine, or came while that was being made up for (as long again), is
    left out; what a gauge said then is NaN. Stalls no longer than the machine was late at the worst
    are left out, too. Every time becomes
    shorter. A request is woken about five times, so one request in a hundred meets what one
    wake-up in five hundred meets: the p99 becomes shorter by twice (as two may be late) the
    lateness that one wake-up in five hundred had, and every other rank by its own.
    """
    machine = run.machine

    def met_a_pause(start: float, end: float) -> bool:
        return any(start < 2 * stop - begin and end > begin for begin, stop in machine.pauses)

    def shorten(items: Sequence[T], seconds: Callable[[T], float]) -> list[tuple[T, float]]:
        """Each item, the shortest first, with its time less what lateness can have added."""
        ranked = sorted(items, key=seconds)
        rarer = [(1 - rank / (len(ranked) + 1)) / _WAKE_UPS for rank in range(1, len(ranked) + 1)]
        late = [_AT_ONCE * machine.late(1 - share) / 1e3 for share in rarer]
        return [(it, max(0.0, seconds(it) - s)) for it, s in zip(ranked, late, strict=True)]

    kept = [i for i, r in enumerate(run._requests) if not met_a_pause(r.intended, r.finished)]
    requests = {i: run._requests[i] for i in kept}
    for offer in {r.offer for r in run._requests}:
        those = [i for i in kept if requests[i].offer == offer]
        for i, time in shorten(those, lambda i: requests[i].finished - requests[i].intended):
            finished = requests[i].intended + time
            started = min(requests[i].started, finished)
            requests[i] = replace(requests[i], started=started, finished=finished)
        if not those:  # so that whoever asks for its latency hears that there is none
            kept.append(len(run._requests) + len(kept))
            requests[kept[-1]] = Request(offer, math.nan, error="each met a pause of the machine")
    row = {-1: -1} | {old: new for new, old in enumerate(kept)}
    spans = []
    for name in {s.name for s in run._spans}:
        those_spans = [s for s in run._spans if s.name == name and s.request in row]
        for span, time in shorten(those_spans, lambda s: s.seconds):
            if not met_a_pause(span.start, span.start + span.seconds):
                spans.append(span._replace(request=row[span.request], seconds=time))
    lag = [(at, ms) for at, ms in run._lag if not met_a_pause(at - ms / 1e3, at)]
    stalls = [
        s
        for s in run.stalls
        if not met_a_pause(s.start_s, s.start_s + s.duration_ms / 1e3)
        and s.duration_ms > machine.late(1)
    ]
    readings = [r for r in run._readings if not met_a_pause(r.at, r.at)]
    for name in {r.name for r in run._readings}:
        for begin, stop in machine.pauses:
            over = 2 * stop - begin
            last = [r.value for r in run._readings if r.name == name and r.at <= over][-1:]
            readings += [Reading(begin, name, math.nan), *(Reading(over, name, v) for v in last)]
    return replace(
        run,
        stalls=tuple(stalls),
        _requests=list(requests.values()),
        _readings=sorted(readings, key=lambda r: r.at),
        _spans=sorted(spans, key=lambda s: s.start),
        _lag=sorted((at, 1e3 * s) for (at, _), s in shorten(lag, lambda window: window[1] / 1e3)),
    )
