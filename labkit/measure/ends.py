"""A figure of a run at both ends of the rule of claims."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

from labkit.measure.run import Run

Figure = Callable[[Run], float]


class Ends(NamedTuple):
    """A figure as seen and on a quiet machine, the least and the most that it may have been."""

    seen: float
    quiet: float
    low: float
    high: float


def ends_of(
    figure: Figure, measured: Run | float, others: Callable[[Run], Iterable[Run]] = lambda run: ()
) -> Ends:
    """A figure of a run at both ends of the rule; both ends of a plain number are that number.

    `others` gives what chance might have made of a run.
    """
    if not isinstance(measured, Run):
        return Ends(measured, measured, measured, measured)
    seen, left = float(figure(measured)), measured.undisturbed
    undisturbed = of_what_is_left(figure, left)
    # Without what met a pause, nothing is left of it, or too little to stand for it; and whatever
    # computes and queues for a processor can make a queue of any length.
    few = len(left.requests) < len(measured.requests) / 2
    if math.isnan(undisturbed) or few or measured.machine.starved:
        return Ends(seen, 0.0, 0.0, math.inf)
    runs = (measured, left) if measured.machine.pauses else (measured,)
    might = [of_what_is_left(figure, other) for run in runs for other in others(run)]
    might = [seen, undisturbed, *(it for it in might if not math.isnan(it))]
    return Ends(seen, min(seen, undisturbed), min(might), max(might))


def of_what_is_left(figure: Figure, run: Run) -> float:
    """A figure of a run without what met a pause; NaN if too little is left to make it of."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return float(figure(run))
    except Exception:  # of whatever kind: of the whole run, it could be made
        return math.nan
