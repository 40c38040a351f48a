"""What was measured before and after, compared: the ends of a figure and of a ratio."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import median_low
from typing import Any, NamedTuple

from labkit.display import number
from labkit.errors import LabError
from labkit.measure.run import Run, ms

Figure = Callable[[Run], float]
Measured = Run | float | Sequence[Run] | Sequence[float]

NOISE = "the difference is no larger than the noise"
_DOUBT = {1: 1.25, 2: 1.1}  # by how much a ratio may be off, by the number of pairs


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, whether it held (None: inconclusive), the figure that decided, and a reason."""

    claim: str
    held: bool | None
    figure: str
    why: str = ""


class Ends(NamedTuple):
    """A figure as it was seen, and the least and the most that it may have been."""

    seen: float
    low: float
    high: float


class Side(NamedTuple):
    """What was measured before, or after."""

    ends: list[Ends]
    runs: list[Run]
    failed: int


class Pairs:
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
        def side(measured: Measured) -> Side:
            each = listed(measured)
            runs = [it for it in each if isinstance(it, Run)]
            failed = sum(_failures(run, offer, refusal) for run in runs)
            return Side([ends_of(figure or p99, it) for it in each], runs, failed)

        def p99(run: Run) -> float:
            return run.latency(offer).p99

        self.before, self.after, self.unit = side(before), side(after), unit
        partners(before, after)  # or it says what is missing
        self.ends = list(zip(self.before.ends, self.after.ends, strict=True))
        self.doubt = _DOUBT.get(len(self.ends), 1.0)
        self.remark = ""
        if refusal:
            refused = sum(run.failed(offer) for run in self.after.runs) - self.after.failed
            self.remark = f"; {refused:,} refused"

    def so_many_times(self, claim: str, times: float, large: Side, small: Side) -> Claim:
        """Claim that one side is so many times the other."""
        pairs = list(zip(large.ends, small.ends, strict=True))
        lows = [over(one.low, other.high) for one, other in pairs]
        highs = [over(one.high, other.low, math.inf) for one, other in pairs]
        true = median_low(lows) / self.doubt >= times
        false = max(highs) * self.doubt < times
        return self.claim(claim, [over(a.seen, b.seen, math.nan) for a, b in pairs], true, false)

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
        said = " → ".join(words(end.seen, self.unit) for end in shown) + remark
        figure = f"{spread(ratios)}, {said}" if comparable else said
        held = True if true else False if false else None
        return Claim(claim, held, figure, (why or NOISE) if held is None else "")


def ends_of(figure: Figure, measured: Run | float) -> Ends:
    """A figure of a run at both ends of the rule; a plain number is known as it is."""
    if not isinstance(measured, Run):
        return Ends(measured, measured, measured)
    seen, undisturbed = float(figure(measured)), float(figure(measured.undisturbed))
    if math.isnan(undisturbed):  # nothing is left of it without what met a pause
        return Ends(seen, 0.0, math.inf)
    # Where no processor was idle, whatever computed may have taken twice as long.
    low = min(seen, undisturbed) / (2 if measured.machine.starved else 1)
    return Ends(seen, low, max(seen, undisturbed))


def over(large: float, small: float, nothing: float = 0.0) -> float:
    """A ratio; of something to nothing it is infinite, of nothing to nothing it is `nothing`."""
    if small == 0:
        return math.inf if large > 0 else nothing
    return large / small


def _failures(run: Run, offer: str | None, refusal: str) -> int:
    errors = run.requests.error[run.requests.offer == (offer or run.victim)].dropna()
    return sum(not (refusal and error.startswith(refusal)) for error in errors)


def typical(ratios: Sequence[float]) -> int:
    """Which of several ratios is their median (of an even number, the lower of the middle two)."""
    return list(ratios).index(median_low(ratios))


def spread(ratios: Sequence[float], word: str = "") -> str:
    """A ratio in words, with a word to it ("lower"); of several, the median and the range."""
    low, middle, high = (_times(r) for r in (min(ratios), median_low(ratios), max(ratios)))
    several = f" (median of {len(ratios)} pairs, {low} to {high})" if len(ratios) > 1 else ""
    return f"{middle} {word}".rstrip() + several


def partners(before: Measured, after: Measured) -> list[tuple[Any, Any]]:
    """Each that was measured before, beside the one that was measured next to it after.

    Raises:
        LabError: There are none, or one has no partner.
    """
    befores, afters = listed(before), listed(after)
    if not befores or len(befores) != len(afters):
        raise LabError(
            f"{len(befores)} measured before and {len(afters)} after cannot be compared. Expected "
            f"as many of each, and at least one: each is compared with its partner."
        )
    return list(zip(befores, afters, strict=True))


def listed(measured: Measured) -> list[Any]:
    """One or several, as a list."""
    return [measured] if isinstance(measured, Run | Real) else list(measured)  # type: ignore[arg-type]


def words(value: Any, unit: str = "") -> str:
    """A figure with its unit."""
    if unit == "%":
        return f"{value:.1%}"
    if unit == "ms":
        return f"{ms(value)} ms"
    if isinstance(value, Real) and not isinstance(value, bool):
        return f"{number(float(value))} {unit}".rstrip()
    return f"{value}"


def _times(ratio: float) -> str:
    if math.isinf(ratio):
        return "∞×"
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
