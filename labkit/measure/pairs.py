"""Claims on what was measured before and after: pairs of figures, and the ratio of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from statistics import median_low
from typing import Any

from labkit.errors import LabError
from labkit.measure.claims import (
    Claim,
    Ends,
    Figure,
    decide,
    ends_of,
    invalid_in,
    trouble_in,
    words,
)
from labkit.measure.run import Run

Measured = Run | float | Sequence[Run] | Sequence[float]
Pairs = list[tuple[Ends, Ends]]  # before, after

DOUBT = {1: 1.25, 2: 1.1}  # by how much a ratio may be off, by the number of pairs


def _fallen(pairs: Pairs, times: float, doubt: float) -> tuple[list[float], bool, bool]:
    """The ratio of each pair; whether they reach so many times; whether none of them can."""
    seen = [_over(b.seen, a.seen, math.nan) for b, a in pairs]
    least = [_over(b.low, a.high) for b, a in pairs]
    most = [_over(b.high, a.low, math.inf) for b, a in pairs]
    return seen, median_low(least) / doubt >= times, max(most) * doubt < times


def _alike(pairs: Pairs, times: float, doubt: float) -> tuple[list[float], bool, bool]:
    """The same, where the ratios are claimed to be between 1 / times and times."""
    seen, _, risen = _fallen(pairs, 1 / times, doubt)
    _, _, fallen = _fallen([(a, b) for b, a in pairs], 1 / times, doubt)
    quiet = [_over(b.low, a.low) for b, a in pairs]
    true = all(1 / times <= median_low(ratios) <= times for ratios in (seen, quiet))
    return seen, true, risen or fallen


def lower(
    claim: str,
    times: float,
    before: Measured,
    after: Measured,
    figure: Figure | None = None,
    *,
    offer: str | None = None,
    refusal: str = "",
    unit: str = "ms",
    judge: Callable[[Pairs, float, float], tuple[list[float], bool, bool]] = _fallen,
) -> Claim:
    """Claim that a figure is at least so many times lower after than before.

    Args:
        claim: The sentence.
        times: How many times lower.
        before: A run or several; or plain numbers, if no run has the figure.
        after: As many, each taken next to its partner.
        figure: Takes a run, gives a number; if not given, the p99 of `offer`.
        offer: Whose failures count; the victim's, if not given.
        refusal: The error by which the service refuses on purpose ("Overloaded"): such a request
            does not count as failed, and their number is said.
        unit: What the figure is measured in; "%" shows a share as percents.
        judge: What is claimed of the ratios; `similar` claims something else.

    Raises:
        LabError: There are no runs, or not as many after as before.
    """

    def p99(run: Run) -> float:
        return run.latency(offer).p99

    def failed(runs: list[Run], refusal: str = refusal) -> int:
        return sum(run.failed(offer or run.victim, refusal) for run in runs)

    both = partners(before, after)
    befores, afters = (
        [it for it in side if isinstance(it, Run)] for side in zip(*both, strict=True)
    )
    pairs = [(ends_of(figure or p99, b), ends_of(figure or p99, a)) for b, a in both]
    ratios, true, false = judge(pairs, times, DOUBT.get(len(pairs), 1.0))
    comparable, why = not any(map(math.isnan, ratios)), trouble_in([*befores, *afters])
    remark = f"; {failed(afters, '') - failed(afters):,} refused" if refusal else ""
    if invalid := invalid_in([*befores, *afters]):
        true, false, why = False, False, invalid
    elif failed(afters) > failed(befores):
        true, false = False, not why
        remark += f"; {failed(afters):,} failed, {failed(befores):,} before"
    elif not comparable:
        true, false, why = False, False, "there is nothing to compare"
    shown = pairs[typical(ratios) if comparable else 0]
    said = " → ".join(words(end.seen, unit) for end in shown) + remark
    return decide(claim, true, false, f"{spread(ratios)}, {said}" if comparable else said, why)


def similar(
    claim: str,
    times: float,
    before: Measured,
    after: Measured,
    *,
    offer: str | None = None,
    unit: str = "ms",
) -> Claim:
    """Claim that a p99 or a number is within so many times of what it was; else as `lower`.

    Partners have met the same machine: both are taken as seen, and both as undisturbed.
    """
    return lower(claim, times, before, after, offer=offer, unit=unit, judge=_alike)


def partners(before: Measured, after: Measured) -> list[tuple[Any, Any]]:
    """Each that was measured before, beside the one that was measured next to it after.

    Raises:
        LabError: There are none, or one has no partner.
    """
    befores, afters = (
        [side] if isinstance(side, Run | Real) else list(side)  # type: ignore[arg-type]
        for side in (before, after)
    )
    if not befores or len(befores) != len(afters):
        raise LabError(
            f"{len(befores)} measured before and {len(afters)} after cannot be compared. Expected "
            f"as many of each, and at least one: each is compared with its partner."
        )
    return list(zip(befores, afters, strict=True))


def typical(ratios: Sequence[float]) -> int:
    """Which of several ratios is their median (of an even number, the lower of the middle two)."""
    return list(ratios).index(median_low(ratios))


def spread(ratios: Sequence[float], word: str = "", middle: float | None = None) -> str:
    """A ratio in words, with a word to it ("lower"); of several, the typical one and the range."""
    shown = f"{_times(median_low(ratios) if middle is None else middle)} {word}".rstrip()
    low, high = _times(min(ratios)), _times(max(ratios))
    return shown + (f" (median of {len(ratios)} pairs, {low} to {high})" if len(ratios) > 1 else "")


def _over(large: float, small: float, nothing: float = 0.0) -> float:
    """A ratio; of something to nothing it is infinite, of nothing to nothing it is `nothing`."""
    if small == 0:
        return math.inf if large > 0 else nothing
    return large / small


def _times(ratio: float) -> str:
    if math.isinf(ratio):
        return "∞×"
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
