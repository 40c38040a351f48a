"""Claims with figures: held, broken, or inconclusive, by one rule.

**The rule.** A figure lies between two ends: what was seen, and what a machine that is never late
would have shown (`Run.undisturbed`). A claim held if it is true at both ends; it is broken if it is
true nowhere between them; else it is inconclusive, and says why. Of a run of which the pauses left
less than half, or whose machine was late again and again, nothing is known.

A ratio is taken at its worst (the least before, divided by the most after) and at its best. Chance
moves these ends further apart: either half of the requests, or of the spans, drawn by lot, might
have been all; and a figure must not rest on one moment, so the ends are also those without what
began within 0.35 s (of several pairs, 0.18 s), wherever that is. Of three pairs or more the one in
the middle decides that a claim held, if the best of no pair is below the square root of what is
claimed; it is broken only if no pair reaches it. Fewer carry less: the ratio of two may be off by a
tenth, that of a single pair by a quarter. Fewer than 300 requests before break no claim on a p99,
and fewer than 200 after hold none. That two are alike is held by the ratios as seen and on a quiet
machine; chance can only keep it from being broken. A limit is one of what was seen. Of the
difference of two counts, N in sum, 3·√N can be chance: 4 stalls before and none after are
inconclusive.

Nothing is lower or alike where a larger share of requests fails than before (of the offer that is
named, or of any): whoever got no answer was not served sooner. If the share before lets expect N
failures of as many requests, up to 3·√N more can be chance; they are surely more beyond 5·√N, with
one failure more before. Where more failed before, nothing is broken: who knows how long they would
have waited?

Times under debug mode or a tracer, and 0 to 0, are inconclusive. A count, a list or a plain number
is taken as it is; if it is not as claimed, and the machine was in trouble meanwhile
(`Machine.trouble`), the claim is inconclusive.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sized
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any, NamedTuple

from labkit.display import as_html, number, show
from labkit.errors import LabError
from labkit.measure.machine import Machine
from labkit.measure.run import Run, ms

Figure = Callable[[Run], float]
Watched = Run | Machine | Iterable[Run | Machine]

VERDICT = {True: "✔ held", False: "✘ broken", None: "? inconclusive"}


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, whether it held (None: inconclusive), the figure that decided, and a reason."""

    claim: str
    held: bool | None
    figure: str
    why: str = ""


def exactly(claim: str, expected: Any, seen: Any, during: Watched = ()) -> Claim:
    """Claim that what was seen is what was expected.

    Args:
        claim: The sentence.
        expected: Any value: a count, a list, a text; or a function of a run, which gives a count.
        seen: The same. Two functions must agree in each run; the count of one is added up.
        during: The runs (or a `Machine`) in which it was seen; for a function, at least one,
            else it raises LabError.
    """
    during = _listed(during)
    each = [[*map(it, _runs(during))] if callable(it) else it for it in (expected, seen)]
    both = [sum(it) if callable(of) else it for it, of in zip(each, (expected, seen), strict=True)]
    wanted, found = each if callable(expected) and callable(seen) else both
    counts = all(isinstance(it, Integral) and not isinstance(it, bool) for it in both)
    said = f"{both[1]:,} of {both[0]:,}" if counts and both[0] else words(both[1])
    said = f"{found} of {wanted}" if both[0] == both[1] and wanted != found else said
    _, trouble = doubts(during)
    return decide(claim, wanted == found, not trouble, said, trouble)


def none(claim: str, seen: Any, during: Watched = ()) -> Claim:
    """Claim that there is nothing of a kind: a count of 0, or an empty collection.

    Args:
        claim: The sentence.
        seen: A count, a collection, or a function that takes a run and gives one.
        during: As for `exactly`. If most of what was found met no pause, it was there, unless the
            machine was in other trouble, too.
    """
    during = _listed(during)
    _, trouble = doubts(during)
    if callable(seen):
        runs = _runs(during)

        def count(run: Run) -> float:
            return _count(seen(run))

        found = sum(map(count, runs))
        left = [of_what_is_left(count, run.undisturbed) for run in runs]
        undisturbed = sum(count for count in left if not math.isnan(count))
        if undisturbed > found / 2:
            trouble = doubts(replace(run.machine, pauses=[]) for run in runs)[1] and trouble
    else:
        found = _count(seen)
    return decide(claim, not found, not trouble, f"{found:,.10g}", trouble)


def at_most(claim: str, limit: float, seen: Any, during: Watched = (), *, unit: str = "") -> Claim:
    """Claim that a number is `limit` or less, or what a function of a run gives in each run.

    Args:
        claim: The sentence.
        limit: The limit.
        seen: The number, or the function.
        during: The runs (or a `Machine`) in which it was seen; a function needs at least one.
        unit: What the figure is measured in: "ms", or any word; "%" shows a share as percents.
    """
    return _limit(claim, lambda it: it <= limit, max, seen, during, unit)


def above(claim: str, limit: float, seen: Any, during: Watched = (), *, unit: str = "") -> Claim:
    """Claim that a number is more than `limit`; all else is as for `at_most`."""
    return _limit(claim, lambda it: it > limit, min, seen, during, unit)


def verify(*claims: Claim) -> None:
    """Show each claim with its verdict and its figure, and why if it is inconclusive."""
    if wrong := [it for it in claims if not isinstance(it, Claim)]:
        raise LabError(
            f"verify() was given {wrong[0]!r:.40}. Expected claims, one after the other: "
            "`lab.verify(lab.none('no stall', run.stalls, run), lab.at_most(...))`."
        )
    rows = []
    for c in claims:
        figure = f"{c.figure}; {c.why}: run it again" if c.held is None else c.figure
        rows.append((VERDICT[c.held], c.claim, figure))
    text = "\n".join(f"{verdict}: {claim} ({figure})" for verdict, claim, figure in rows)
    html = as_html(["verdict", "claim", "figure"], rows)
    show(text, html=html, data={"claims": [asdict(c) for c in claims]})


def decide(claim: str, true: Any, false: Any, figure: str, why: str, unknown: str = "") -> Claim:
    """A claim that is surely true, surely not, or neither; and why it is neither.

    If something is `unknown` that it rests on, nothing can be decided, whatever else is true.
    """
    held = None if unknown else True if true else False if false else None
    why = unknown or why or "the difference is no larger than the noise"
    return Claim(claim, held, figure, why if held is None else "")


def doubts(during: Watched) -> tuple[str, str]:
    """Why times seen meanwhile are not the service's; why anything may be the machine's; or ""."""
    listed = _listed(during)
    invalid = next((it.invalid for it in listed if isinstance(it, Run) and it.invalid), "")
    machines = [it.machine if isinstance(it, Run) else it for it in listed]
    trouble = next((machine.trouble for machine in machines if machine.trouble), "")
    return f"{invalid}, so these times are not the service's" if invalid else "", trouble


def words(value: Any, unit: str = "") -> str:
    """A figure with its unit."""
    if unit == "%":
        return f"{value:.1%}"
    if unit == "ms":
        return f"{ms(value)} ms"
    if isinstance(value, Real) and not isinstance(value, bool):
        return f"{number(float(value))} {unit}".rstrip()
    return f"{value}"


class Ends(NamedTuple):
    """A figure as seen and on a quiet machine, the least and the most that it may have been."""

    seen: float
    quiet: float
    low: float
    high: float


def ends_of(
    figure: Any, measured: Run | float, others: Callable[[Run], Iterable[Run]] = lambda run: ()
) -> Ends:
    """A figure of a run at both ends of the rule; both ends of a plain number are that number.

    `others` gives what chance might have made of a run.
    """
    if not isinstance(measured, Run):
        return Ends(measured, measured, measured, measured)
    seen, left = float(figure(measured)), measured.undisturbed
    undisturbed = of_what_is_left(figure, left)
    few = len(left.requests) < len(measured.requests) / 2  # too few to stand for all
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


def _limit(
    claim: str, is_so: Callable[[float], bool], worst: Any, seen: Any, during: Watched, unit: str
) -> Claim:
    during = _listed(during)
    runs = _runs(during) if callable(seen) else []
    of_number = [] if callable(seen) else [Ends(seen, seen, seen, seen)]
    ends = [ends_of(seen, run) for run in runs] or of_number
    so = [[is_so(it) for it in end] for end in ends]
    figure = words(worst(end.seen for end in ends), unit)
    invalid, trouble = doubts(during)
    unknown = invalid if runs else ""
    if any(math.isnan(end.seen) for end in ends):
        unknown = "there is no figure"
    if worst is max and (failed := sum(run.failed() for run in runs)):
        figure += f"; {failed:,} of {sum(len(run.requests) for run in runs):,} failed"
    true, false = all(map(all, so)), not trouble and not all(map(any, so))
    return decide(claim, true, false, figure, trouble, unknown)


def _listed(during: Watched) -> list[Run | Machine]:
    return [during] if isinstance(during, Run | Machine) else list(during)


def _runs(during: Watched) -> list[Run]:
    runs = [it for it in _listed(during) if isinstance(it, Run)]
    if not runs:
        raise LabError(
            "A function of a run was claimed, but no run was given. Expected the run or runs as "
            "the last argument: `lab.none('no stall', lambda run: run.stalls, run)`."
        )
    return runs


def _count(it: Any) -> float:
    return len(it) if isinstance(it, Sized) else it
