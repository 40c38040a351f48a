"""Claims with figures: held, broken, or inconclusive, by one rule.

**The rule.** A figure lies between two ends: what was seen, and what a machine that is never late
would have shown (`Run.undisturbed`: requests and stalls that met a pause of the machine are left
out, and every time is shorter by what its lateness can have added). A claim

- held, if it is true at both ends;
- is broken, if it is true at neither, nor between them;
- is inconclusive otherwise, and the claim says why.

A ratio is taken at its worst and at its best: the lowest that `before` may have been over the
highest that `after` may have been, and the other way round. Of three pairs or more the one in the
middle decides that a claim held, and all must fall short for it to be broken. A single pair
carries less: its ratio may be off by half as much again, that of two by a quarter.

Nothing held where more requests fail than before: whoever got no answer was not served sooner.
Times under debug mode or a tracer, and 0 to 0, are inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any, NamedTuple

from labkit.display import as_html, number, show
from labkit.errors import LabError
from labkit.measure.machine import Machine
from labkit.measure.run import Run, ms

Figure = Callable[[Run], float]
Measured = Run | float | Sequence[Run] | Sequence[float]
Watched = Run | Machine | Iterable[Run | Machine]

_DOUBT = {1: 1.5, 2: 1.25}  # by how much a ratio may be off, by the number of pairs
_MARK = {True: ("✔", "held"), False: ("✘", "broken"), None: ("?", "inconclusive")}


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, whether it held (None: inconclusive), the figure that decided, and a reason."""

    claim: str
    held: bool | None
    figure: str
    why: str = ""


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

    Raises:
        LabError: There are no runs, or not as many after as before.
    """
    pairs = _Pairs(before, after, figure, offer, refusal, unit)
    return _so_many_times(claim, times, pairs, up=False)


def higher(
    claim: str,
    times: float,
    before: Measured,
    after: Measured,
    figure: Figure | None = None,
    *,
    offer: str | None = None,
    refusal: str = "",
    unit: str = "ms",
) -> Claim:
    """Claim that a figure is at least so many times higher after than before; else as `lower`."""
    pairs = _Pairs(before, after, figure, offer, refusal, unit)
    return _so_many_times(claim, times, pairs, up=True)


def similar(
    claim: str,
    times: float,
    before: Measured,
    after: Measured,
    figure: Figure | None = None,
    *,
    offer: str | None = None,
    refusal: str = "",
    unit: str = "ms",
) -> Claim:
    """Claim that a figure is within so many times of what it was, up or down; else as `lower`."""
    pairs = _Pairs(before, after, figure, offer, refusal, unit)
    ends = list(zip(pairs.before, pairs.after, strict=True))
    ratios = [_over(before.seen, after.seen) for before, after in ends]
    quiet = [_over(before.low, after.low) for before, after in ends]  # the same machine for both
    lows = [_over(before.low, after.high) for before, after in ends]
    highs = [_over(before.high, after.low, math.inf) for before, after in ends]
    true = all(1 / times <= median_low(r) <= times for r in (ratios, quiet))
    false = max(highs) * pairs.doubt < 1 / times or min(lows) / pairs.doubt > times
    return pairs.verdict(claim, ratios, true, false)


at_least = lower  # until the notebooks say `lower`


def exactly(claim: str, expected: Any, seen: Any, during: Watched = ()) -> Claim:
    """Claim that what was seen is what was expected.

    If it is not, and the machine was in trouble meanwhile, the claim is inconclusive.

    Args:
        claim: The sentence.
        expected: Any value; or a function of a run, which is added up over the runs.
        seen: The same.
        during: The runs (or a `Machine`) in which it was seen.
    """
    runs = _runs(during) if callable(seen) or callable(expected) else []
    wanted = sum(map(expected, runs)) if callable(expected) else expected
    found = sum(map(seen, runs)) if callable(seen) else seen
    counts = isinstance(wanted, int) and not isinstance(wanted, bool)
    said = f"{found:,} of {wanted:,}" if counts and wanted else _said(found)
    return _certain(claim, bool(found == wanted), said, during)


def none(claim: str, seen: Any, during: Watched = ()) -> Claim:
    """Claim that there is nothing of a kind: a count of 0, or an empty list.

    Args:
        claim: The sentence.
        seen: A count, a collection, or a function that takes a run and gives one.
        during: The runs (or a `Machine`) in which it was looked for.
    """
    if not callable(seen):
        return _certain(claim, not _count(seen), f"{_count(seen):,.10g}", during)
    runs = _runs(during)
    found = sum(_count(seen(run)) for run in runs)
    clear = sum(_count(seen(run.undisturbed)) for run in runs)
    return _certain(claim, not found, f"{found:,.10g}", () if clear > found / 2 else during)


def at_most(
    claim: str, limit: float, seen: float | Figure, during: Watched = (), *, unit: str = ""
) -> Claim:
    """Claim that a figure is `limit` or less; of a function of a run, in each run."""
    return _limit(claim, lambda value: value <= limit, max, seen, during, unit)


def above(
    claim: str, limit: float, seen: float | Figure, during: Watched = (), *, unit: str = ""
) -> Claim:
    """Claim that a figure is more than `limit`; of a function of a run, in each run."""
    return _limit(claim, lambda value: value > limit, min, seen, during, unit)


def verify(*claims: Claim | tuple[str, bool, str]) -> None:
    """Show each claim with its verdict and its figure, and why if it is inconclusive.

    Args:
        claims: What the functions above return; or, for a plain fact, a tuple: the sentence,
            whether it is so, the figure.
    """
    checked = [c if isinstance(c, Claim) else _from_tuple(*c) for c in claims]
    rows = []
    for c in checked:
        why = f"; {c.why or 'this machine is busy, or shared'}: run it again"
        rows.append((" ".join(_MARK[c.held]), c.claim, c.figure + (why if c.held is None else "")))
    lines = [f"{verdict}: {claim} ({figure})" for verdict, claim, figure in rows]
    html = as_html(["verdict", "claim", "figure"], rows)
    show("\n".join(lines), html=html, data={"claims": [asdict(c) for c in checked]})


def as_runs(runs: Run | Sequence[Run]) -> list[Run]:
    """One run or several, as a list."""
    return [runs] if isinstance(runs, Run) else list(runs)


def typical(ratios: Sequence[float]) -> int:
    """Which of several ratios is their median (of an even number, the lower of the middle two)."""
    return list(ratios).index(median_low(ratios))


def spread(ratios: Sequence[float], word: str = "") -> str:
    """A ratio in words, with a word to it ("lower"); of several, the median and the range."""
    low, middle, high = (_times(r) for r in (min(ratios), median_low(ratios), max(ratios)))
    several = f" (median of {len(ratios)} pairs, {low} to {high})" if len(ratios) > 1 else ""
    return f"{middle} {word}".rstrip() + several


def partners(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Partners, each measured next to the other.

    Raises:
        LabError: There are none, or one has no partner.
    """
    if not before or len(before) != len(after):
        raise LabError(
            f"{len(before)} measured before and {len(after)} after cannot be compared. Expected "
            f"as many of each, and at least one: each is compared with its partner."
        )
    return list(zip(before, after, strict=True))


class _Ends(NamedTuple):
    """A figure as it was seen, and the lowest and highest that it may have been."""

    seen: float
    low: float
    high: float


class _Pairs:
    """Figures before and after, each beside its partner, and what there is to say of both."""

    def __init__(
        self,
        before: Measured,
        after: Measured,
        figure: Figure | None,
        offer: str | None,
        refusal: str,
        unit: str,
    ) -> None:
        sides = [_listed(before), _listed(after)]
        partners(*sides)
        figure = figure or (lambda run: run.latency(offer).p99)
        self.before, self.after = ([_ends(figure, it) for it in side] for side in sides)
        self.runs = [[it for it in side if isinstance(it, Run)] for side in sides]
        self.doubt = _DOUBT.get(len(self.before), 1.0)
        self.failed = [sum(_failed(r, offer, refusal) for r in side) for side in self.runs]
        refused = sum(run.failed(offer) for run in self.runs[1]) - self.failed[1]
        self._more = f"; {refused:,} refused" if refusal else ""
        if self.failed[1] > self.failed[0]:
            self._more += f"; {self.failed[1]:,} failed, {self.failed[0]:,} before"
        self._unit = unit

    def verdict(self, claim: str, ratios: list[float], true: bool, false: bool) -> Claim:
        """The claim, if nothing speaks against comparing these runs at all."""
        why = next((r.machine.trouble for s in self.runs for r in s if r.machine.trouble), "")
        invalid = next((run.invalid for side in self.runs for run in side if run.invalid), "")
        if invalid:
            true, false, why = False, False, f"{invalid}, so these times are not the service's"
        elif len(self.runs[1]) and self.failed[1] > self.failed[0]:
            true, false = False, not why
        elif any(map(math.isnan, ratios)):
            true, false, why = False, False, "there is nothing to compare"
        held = True if true else False if false else None
        at = 0 if any(map(math.isnan, ratios)) else typical(ratios)
        said = " → ".join(_said(side[at].seen, self._unit) for side in (self.before, self.after))
        figure = f"{spread(ratios)}, {said}{self._more}"
        why = why or "the difference is no larger than the noise"
        return Claim(claim, held, figure, "" if held is not None else why)


def _so_many_times(claim: str, times: float, pairs: _Pairs, *, up: bool) -> Claim:
    ends = list(zip(pairs.before, pairs.after, strict=True))
    ends = [(after, before) if up else (before, after) for before, after in ends]
    ratios = [_over(large.seen, small.seen) for large, small in ends]
    lows = [_over(large.low, small.high) for large, small in ends]
    highs = [_over(large.high, small.low, math.inf) for large, small in ends]
    large, small = reversed(pairs.runs) if up else pairs.runs
    # Whoever computes takes longer where no processor is idle: by how much, nobody knows.
    true = median_low(lows) / pairs.doubt >= times and not any(r.machine.starved for r in large)
    false = max(highs) * pairs.doubt < times and not any(r.machine.starved for r in small)
    return pairs.verdict(claim, ratios, true, false)


def _certain(claim: str, true: bool, figure: str, during: Watched) -> Claim:
    """The claim, if it is true; else broken, unless the machine was in trouble meanwhile."""
    watched = [during] if isinstance(during, Run | Machine) else list(during)
    machines = [it.machine if isinstance(it, Run) else it for it in watched]
    why = next((machine.trouble for machine in machines if machine.trouble), "")
    held = True if true else None if why else False
    return Claim(claim, held, figure, "" if true else why)


def _limit(
    claim: str,
    true: Callable[[float], bool],
    worst: Callable[[Iterable[float]], float],
    seen: float | Figure,
    during: Watched,
    unit: str,
) -> Claim:
    if not callable(seen):
        return _certain(claim, bool(true(seen)), _said(seen, unit), during)
    runs = _runs(during)
    ends = [_ends(seen, run) for run in runs]
    said = _said(worst(end.seen for end in ends), unit)
    if invalid := next((run.invalid for run in runs if run.invalid), ""):
        return Claim(claim, None, said, f"{invalid}, so these times are not the service's")
    both = [true(end.low) and true(end.high) for end in ends]
    if not all(both) and all(true(end.low) or true(end.high) for end in ends):
        return Claim(claim, None, said, "the difference is no larger than the noise")
    return _certain(claim, all(both), said, during)


def _listed(measured: Measured) -> list[Any]:
    return [measured] if isinstance(measured, Run | float | int) else list(measured)


def _runs(during: Watched) -> list[Run]:
    watched = [during] if isinstance(during, Run | Machine) else list(during)
    runs = [it for it in watched if isinstance(it, Run)]
    if not runs:
        raise LabError(
            "A function of a run was claimed, but no run was given. Expected the run or runs as "
            "the last argument: `lab.none('no stall', lambda run: run.stalls, run)`."
        )
    return runs


def _ends(figure: Figure, measured: Run | float) -> _Ends:
    if not isinstance(measured, Run):
        return _Ends(measured, measured, measured)
    seen, undisturbed = float(figure(measured)), float(figure(measured.undisturbed))
    return _Ends(seen, min(seen, undisturbed), max(seen, undisturbed))


def _over(large: float, small: float, of_nothing: float = 0.0) -> float:
    """A ratio; of something to nothing, infinite."""
    if small == 0:
        return math.inf if large > 0 else of_nothing
    return large / small


def _failed(run: Run, offer: str | None, refusal: str) -> int:
    errors = run.requests.error[run.requests.offer == (offer or run.victim)].dropna()
    return sum(not (refusal and error.startswith(refusal)) for error in errors)


def _count(it: Any) -> float:
    return len(it) if isinstance(it, Sized) else it


def _said(value: Any, unit: str = "") -> str:
    if unit == "%":
        return f"{value:.1%}"
    if unit == "ms":
        return f"{ms(value)} ms"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{number(value)} {unit}".rstrip()
    return f"{value}"


def _from_tuple(claim: str, held: Any, figure: str) -> Claim:
    return Claim(claim, None if held is None else bool(held), figure)  # numpy's truth, too


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
