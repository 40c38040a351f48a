"""Claims with figures: held, broken, or inconclusive, by one rule.

**The rule.** A figure lies between two ends: what was seen, and what a machine that is never late
would have shown (`Run.undisturbed`: requests and stalls that met a pause of the machine are left
out, and every time is shorter by what its lateness can have added). A claim

- held, if it is true at both ends;
- is broken, if it is true nowhere between them;
- is inconclusive otherwise, and says why.

A ratio is taken at its worst, the least that one side may have been over the most that the other
may have been, and at its best. Of three pairs or more the one in the middle decides that a claim
held, and it is broken only if no pair reaches it. Fewer carry less: the ratio of a single pair may
be off by a quarter, that of two by a tenth.

Nothing is lower, higher or alike where more requests fail than before: whoever got no answer was
not served sooner. Times under debug mode or a tracer, and 0 to 0, are inconclusive. A count, a list
or a plain number has no ends. It is taken as it is; if it is not as claimed, and the machine was in
trouble meanwhile (`Machine.trouble`), the claim is inconclusive.
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

_DOUBT = {1: 1.25, 2: 1.1}  # by how much a ratio may be off, by the number of pairs
_MARK = {True: ("✔", "held"), False: ("✘", "broken"), None: ("?", "inconclusive")}
_NOISE = "the difference is no larger than the noise"


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
    return pairs.so_many_times(claim, times, pairs.before, pairs.after)


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
    return pairs.so_many_times(claim, times, pairs.after, pairs.before)


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
    """Claim that a figure is within so many times of what it was, up or down; else as `lower`.

    Partners have met the same machine: both are taken as seen, and both as undisturbed.
    """
    pairs = _Pairs(before, after, figure, offer, refusal, unit)
    seen = [_over(b.seen, a.seen) for b, a in pairs.ends]
    quiet = [_over(b.low, a.low) for b, a in pairs.ends]
    least = min(_over(b.low, a.high) for b, a in pairs.ends) / pairs.doubt
    most = max(_over(b.high, a.low, math.inf) for b, a in pairs.ends) * pairs.doubt
    true = all(1 / times <= median_low(ratios) <= times for ratios in (seen, quiet))
    return pairs.claim(claim, seen, true, most < 1 / times or least > times)


def exactly(claim: str, expected: Any, seen: Any, during: Watched = ()) -> Claim:
    """Claim that what was seen is what was expected.

    Args:
        claim: The sentence.
        expected: Any value; or a function of a run, which is added up over the runs.
        seen: The same.
        during: The runs (or a `Machine`) in which it was seen.

    Raises:
        LabError: A function was given, and no run.
    """
    wanted = sum(map(expected, _runs(during))) if callable(expected) else expected
    found = sum(map(seen, _runs(during))) if callable(seen) else seen
    counts = isinstance(wanted, int) and not isinstance(wanted, bool)
    said = f"{found:,} of {wanted:,}" if counts and wanted else _said(found)
    return _certain(claim, bool(found == wanted), said, during)


def none(claim: str, seen: Any, during: Watched = ()) -> Claim:
    """Claim that there is nothing of a kind: a count of 0, or an empty collection.

    Args:
        claim: The sentence.
        seen: A count, a collection, or a function that takes a run and gives one.
        during: The runs (or a `Machine`) in which it was looked for. If most of what was found
            in runs had nothing to do with a pause, it was there, whatever else the machine did.

    Raises:
        LabError: A function was given, and no run.
    """
    if not callable(seen):
        return _certain(claim, not _count(seen), f"{_count(seen):,.10g}", during)
    runs = _runs(during)
    found = sum(_count(seen(run)) for run in runs)
    undisturbed = sum(_count(seen(run.undisturbed)) for run in runs)
    return _certain(claim, not found, f"{found:,.10g}", () if undisturbed > found / 2 else during)


def at_most(
    claim: str, limit: float, seen: float | Figure, during: Watched = (), *, unit: str = ""
) -> Claim:
    """Claim that a figure is `limit` or less; a function of a run must be so in each run."""
    return _limit(claim, lambda value: value <= limit, max, seen, during, unit)


def above(
    claim: str, limit: float, seen: float | Figure, during: Watched = (), *, unit: str = ""
) -> Claim:
    """Claim that a figure is more than `limit`; a function of a run must be so in each run."""
    return _limit(claim, lambda value: value > limit, min, seen, during, unit)


at_least = lower  # until the notebooks say `lower`


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
    """Each that was measured before, beside the one that was measured next to it after.

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
    """A figure as it was seen, and the least and the most that it may have been."""

    seen: float
    low: float
    high: float


class _Side(NamedTuple):
    """What was measured before, or after."""

    ends: list[_Ends]
    runs: list[Run]
    failed: int

    @property
    def starved(self) -> bool:
        """Whether it may have taken longer, nobody knows by how much, for want of a processor."""
        return any(run.machine.starved for run in self.runs)


class _Pairs:
    """Figures before and after, and whether they can be compared at all."""

    def __init__(
        self,
        before: Measured,
        after: Measured,
        figure: Figure | None,
        offer: str | None,
        refusal: str,
        unit: str,
    ) -> None:
        def side(measured: Measured) -> _Side:
            number = isinstance(measured, Run | float | int)
            each: list[Any] = [measured] if number else list(measured)  # type: ignore[arg-type]
            runs = [it for it in each if isinstance(it, Run)]
            failed = sum(_failures(run, offer, refusal) for run in runs)
            return _Side([_ends(figure or p99, it) for it in each], runs, failed)

        def p99(run: Run) -> float:
            return run.latency(offer).p99

        self.before, self.after, self.unit = side(before), side(after), unit
        self.ends = partners(self.before.ends, self.after.ends)
        self.doubt = _DOUBT.get(len(self.ends), 1.0)
        self.remark = ""
        if refusal:
            refused = sum(run.failed(offer) for run in self.after.runs) - self.after.failed
            self.remark = f"; {refused:,} refused"

    def so_many_times(self, claim: str, times: float, large: _Side, small: _Side) -> Claim:
        """Claim that one side is so many times the other."""
        pairs = list(zip(large.ends, small.ends, strict=True))
        lows = [_over(one.low, other.high) for one, other in pairs]
        highs = [_over(one.high, other.low, math.inf) for one, other in pairs]
        true = median_low(lows) / self.doubt >= times and not large.starved
        false = max(highs) * self.doubt < times and not small.starved
        return self.claim(claim, [_over(a.seen, b.seen, math.nan) for a, b in pairs], true, false)

    def claim(self, claim: str, ratios: list[float], true: bool, false: bool) -> Claim:
        """The claim, unless something speaks against comparing the two sides."""
        runs, remark = [*self.before.runs, *self.after.runs], self.remark
        why = next((run.machine.trouble for run in runs if run.machine.trouble), "")
        comparable = not any(map(math.isnan, ratios))
        if invalid := next((run.invalid for run in runs if run.invalid), ""):
            true, false, why = False, False, f"{invalid}, so these times are not the service's"
        elif self.after.runs and self.after.failed > self.before.failed:
            true, false = False, not why
            remark += f"; {self.after.failed:,} failed, {self.before.failed:,} before"
        elif not comparable:
            true, false, why = False, False, "there is nothing to compare"
        shown = self.ends[typical(ratios) if comparable else 0]
        said = " → ".join(_said(end.seen, self.unit) for end in shown) + remark
        figure = f"{spread(ratios)}, {said}" if comparable else said
        held = True if true else False if false else None
        return Claim(claim, held, figure, (why or _NOISE) if held is None else "")


def _ends(figure: Figure, measured: Run | float) -> _Ends:
    if not isinstance(measured, Run):
        return _Ends(measured, measured, measured)
    seen, undisturbed = float(figure(measured)), float(figure(measured.undisturbed))
    return _Ends(seen, min(seen, undisturbed), max(seen, undisturbed))


def _over(large: float, small: float, nothing: float = 0.0) -> float:
    """A ratio; of something to nothing it is infinite, of nothing to nothing it is `nothing`."""
    if small == 0:
        return math.inf if large > 0 else nothing
    return large / small


def _failures(run: Run, offer: str | None, refusal: str) -> int:
    errors = run.requests.error[run.requests.offer == (offer or run.victim)].dropna()
    return sum(not (refusal and error.startswith(refusal)) for error in errors)


def _certain(claim: str, true: bool, figure: str, during: Watched) -> Claim:
    """The claim, if it is true; else broken, unless the machine was in trouble meanwhile."""
    watched = [during] if isinstance(during, Run | Machine) else list(during)
    machines = [it.machine if isinstance(it, Run) else it for it in watched]
    why = next((machine.trouble for machine in machines if machine.trouble), "")
    if true:
        return Claim(claim, True, figure)
    return Claim(claim, None if why else False, figure, why)


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
    held = all(true(end.low) and true(end.high) for end in ends)
    if not held and all(true(end.low) or true(end.high) for end in ends):
        return Claim(claim, None, said, _NOISE)
    return _certain(claim, held, said, during)


def _runs(during: Watched) -> list[Run]:
    watched = [during] if isinstance(during, Run | Machine) else list(during)
    runs = [it for it in watched if isinstance(it, Run)]
    if not runs:
        raise LabError(
            "A function of a run was claimed, but no run was given. Expected the run or runs as "
            "the last argument: `lab.none('no stall', lambda run: run.stalls, run)`."
        )
    return runs


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
    if math.isinf(ratio):
        return "∞×"
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
