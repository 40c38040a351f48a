"""Claims on what was measured before and after: pairs of figures, and the ratio of each."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from numbers import Integral, Real
from statistics import median_low
from typing import Any

from labkit.errors import LabError
from labkit.measure.claims import Claim, Ends, Figure, decide, doubts, ends_of, words
from labkit.measure.run import Run

Measured = Run | float | Sequence[Run] | Sequence[float]
Pairs = list[tuple[Ends, Ends]]  # before, after
Judgement = tuple[list[float], bool, bool]  # each pair's ratio, is it surely so, is it surely not

DOUBT = {1: 1.25, 2: 1.1}  # by how much a ratio may be off, by the number of pairs
# Requests: fewer before break no claim on a p99, as one in 20 such runs shows nothing of what is
# slow once in a hundred; and fewer after hold none.
_FOR_A_P99, _FOR_A_P99_AFTER = 300, 200
_LOTS = 4  # how often the halves are drawn
_MOMENT = 0.35  # s; what began within it may all have met one thing; half of it in several pairs


def _other_chances(run: Run, alone: bool) -> Iterator[Run]:
    """The run with either half of its requests and spans; and without what began in a moment."""
    import numpy as np

    lot = np.random.default_rng(0)

    def halves(table: Any, kind: str) -> Iterator[Any]:
        """Each half of each kind of a table's rows, taken twice."""
        drawn = [lot.permutation(rows) for rows in table.groupby(kind).indices.values()]
        for half in (0, 1):
            twice = [np.resize(rows[min(half, len(rows) - 1) :: 2], len(rows)) for rows in drawn]
            yield table.iloc[sorted(chain(*twice))]

    for _ in range(_LOTS):
        both = halves(run.requests, "offer"), halves(run.spans, "span")
        for requests, spans in zip(*both, strict=True):
            yield replace(run, requests=requests, spans=spans)
    moment, every = (_MOMENT, _MOMENT / 7) if alone else (_MOMENT / 2, _MOMENT / 6)

    def without_the_moment(at: float) -> Run:
        return run.without(lambda start, end: (start >= at) & (start < at + moment))

    yield from map(without_the_moment, np.arange(0, run.seconds, every))


def _fallen(pairs: Pairs, times: float, doubt: float) -> Judgement:
    """Whether the median surely reaches so many times, and the best of none contradicts."""
    seen = [_over(b.seen, a.seen, math.nan) for b, a in pairs]
    least = [_over(b.low, a.high) for b, a in pairs]
    most = [_over(b.high, a.low, math.inf) for b, a in pairs]
    reached = median_low(least) / doubt >= times and min(most) >= min(times, math.sqrt(times))
    return seen, reached, max(most) * doubt < times


def _alike(pairs: Pairs, times: float, doubt: float) -> Judgement:
    """Whether the ratios after / before lie between 1 / times and times."""
    turned = [(a, b) for b, a in pairs]
    seen, _, fallen = _fallen(turned, 1 / times, doubt)
    quiet = [_over(a.quiet, b.quiet) for a, b in turned]
    true = all(1 / times <= median_low(ratios) <= times for ratios in (seen, quiet))
    return seen, true, fallen or _fallen(pairs, 1 / times, doubt)[2]


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
    judge: Callable[[Pairs, float, float], Judgement] = _fallen,
) -> Claim:
    """Claim that a figure is at least so many times lower after than before.

    Args:
        claim: The sentence.
        times: How many times lower.
        before: A run or several; or plain numbers, if no run has the figure.
        after: As many, each taken next to its partner.
        figure: Takes a run, gives a number; if not given, the p99 of `offer`.
        offer: Whose p99, and whose failures count; if not given, the first victim's, and all.
        refusal: How an error begins by which the service refuses on purpose ("Overloaded"): such
            requests do not count as failed, and their number is said.
        unit: What the figure is measured in; "%" shows a share as percents.
        judge: What is claimed of the ratios; `similar` claims something else.

    Raises:
        LabError: There are no runs, or not as many after as before; or `times` is not above 0.
    """
    if not times > 0:
        raise LabError(f"{claim!r}: {times!r} times were claimed. Expected a number above 0.")
    both = partners(before, after)
    befores, afters = ([r for r in side if isinstance(r, Run)] for side in zip(*both, strict=True))
    whose = offer or (befores[0].victim if befores else None)  # the same one's, on both sides
    it = figure or (lambda run: run.latency(whose).p99)
    others = partial(_other_chances, alone=len(both) == 1)
    ends = cache(partial(ends_of, it, others=others))  # one run can be the partner of many
    pairs = [(ends(b), ends(a)) for b, a in both]
    ratios, true, false = judge(pairs, times, DOUBT.get(len(pairs), 1.0))
    comparable, (unknown, why) = not any(map(math.isnan, ratios)), doubts([*befores, *afters])
    if any(end.seen < 0 for pair in pairs for end in pair):
        unknown = "there is no ratio to a figure below 0"
    runs = (*befores, *afters) if figure and unit != "%" else ()
    if runs and all(isinstance(it(run), Integral) for run in runs):
        was, now = (sum(end.seen for end in side) for side in zip(*pairs, strict=True))
        chance = 3 * math.sqrt(was + now)  # these are counts
        true, false = true and was - now > chance, false and times * now - was > chance
    more, surely, remark = more_failed(befores, afters, offer, refusal)
    few, few_after = (
        bool(runs) and not figure and sum(run.latency(whose).count for run in runs) < enough
        for runs, enough in ((befores, _FOR_A_P99), (afters, _FOR_A_P99_AFTER))
    )
    if more:
        true, false = False, surely and not why
        why = why or "chance may have made more requests fail"
    elif not comparable:
        unknown = unknown or "there is nothing to compare"
    elif false and few:
        false, why = False, why or "there were too few requests to rule it out"
    elif true and few_after:
        true, why = False, why or "there were too few requests after to know their p99"
    elif false and more_failed(afters, befores, offer, refusal)[0]:
        false, why = False, why or "more requests had failed before, and the rest does not tell"
    elif befores and not why and not 1 / times < median_low(ratios) < times:
        why = "a few requests, or a single moment, may have made the difference"
    shown = pairs[typical(ratios) if comparable else 0]
    said = " → ".join(words(end.seen, unit) for end in shown) + remark
    said = f"{spread(ratios)}, {said}" if comparable else said
    return decide(claim, true, false, said, why, unknown)


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


def more_failed(
    befores: Sequence[Run], afters: Sequence[Run], offer: str | None, refusal: str = ""
) -> tuple[bool, bool, str]:
    """Whether a larger share failed after (of one offer, or of any); surely so; and in words."""
    more, surely, said = False, False, ""
    if refusal:
        refused = sum(run.failed(offer) - run.failed(offer, refusal) for run in afters)
        said = f"; {refused:,} refused"
    offers = [offer] if offer else dict.fromkeys(chain(*(it.offers for it in (*befores, *afters))))
    for name in offers:
        sides = [[run for run in runs if name in run.offers] for runs in (befores, afters)]
        was, now = (sum(run.failed(name, refusal) for run in runs) for runs in sides)
        before, after = (sum(len(run.requests_of(name)) for run in runs) for runs in sides)
        many = after / max(1, before)
        if now > _most(sum(_failed_by_itself(run, name, refusal) for run in sides[0]), many, 3):
            more, surely = True, surely or now > _most(was + 1, many, 5)
            whose = f"{name}: " if len(offers) > 1 else ""
            said += f"; {whose}{now:,} of {after:,} failed, {was:,} of {before:,} before"
    return more, surely, said


def _most(failed: float, many: float, roots: int) -> float:
    """The most that chance makes of so many failures among `many` times as many requests."""
    expected = failed * many
    return expected + roots * math.sqrt(expected * max(1, (1 + many) / 2))


def _failed_by_itself(run: Run, offer: str, refusal: str) -> float:
    """How many requests of an offer failed, without what a pause of the machine may have added."""
    left = run.undisturbed
    many, of = len(run.requests_of(offer)), len(left.requests_of(offer))
    return min(run.failed(offer, refusal), left.failed(offer, refusal) * many / max(1, of))


def partners(before: Measured, after: Measured) -> list[tuple[Any, Any]]:
    """Pairs: what was measured before, and its partner that was measured after.

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
