"""Claims with figures: held, broken, or inconclusive, by one rule.

**The rule.** A figure lies between two ends: what was seen, and what a machine that is never late
would have shown (`Run.undisturbed`: requests and stalls that met a pause of the machine are left
out, and every time is shorter by what its lateness can have added; half of that, where no processor
was idle). A claim

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
from collections.abc import Callable, Iterable, Sized
from dataclasses import asdict
from numbers import Integral
from statistics import median_low
from typing import Any

from labkit.display import as_html, show
from labkit.errors import LabError
from labkit.measure.machine import Machine
from labkit.measure.pairs import NOISE, Claim, Figure, Measured, Pairs, ends_of, over, words
from labkit.measure.run import Run

Watched = Run | Machine | Iterable[Run | Machine]

_MARK = {True: ("✔", "held"), False: ("✘", "broken"), None: ("?", "inconclusive")}


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
    pairs = Pairs(before, after, figure, offer, refusal, unit)
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
    pairs = Pairs(before, after, figure, offer, refusal, unit)
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
    pairs = Pairs(before, after, figure, offer, refusal, unit)
    seen = [over(b.seen, a.seen) for b, a in pairs.ends]
    quiet = [over(b.low, a.low) for b, a in pairs.ends]
    least = min(over(b.low, a.high) for b, a in pairs.ends) / pairs.doubt
    most = max(over(b.high, a.low, math.inf) for b, a in pairs.ends) * pairs.doubt
    true = all(1 / times <= median_low(ratios) <= times for ratios in (seen, quiet))
    return pairs.claim(claim, seen, true, most < 1 / times or least > times)


def exactly(claim: str, expected: Any, seen: Any, during: Watched = ()) -> Claim:
    """Claim that what was seen is what was expected.

    Args:
        claim: The sentence.
        expected: Any value: a count, a list, a text; or a function of a run, which gives a count
            that is added up over the runs.
        seen: The same.
        during: The runs (or a `Machine`) in which it was seen.

    Raises:
        LabError: A function was given, and no run.
    """
    expected, found = (
        sum(map(it, _runs(during))) if callable(it) else it for it in (expected, seen)
    )
    counts = all(isinstance(it, Integral) and not isinstance(it, bool) for it in (found, expected))
    said = f"{found:,} of {expected:,}" if counts and expected else words(found)
    return _certain(claim, bool(found == expected), said, during)


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


def _certain(claim: str, true: bool, figure: str, during: Watched) -> Claim:
    """The claim, if it is true; else broken, unless the machine was in trouble meanwhile."""
    if true:
        return Claim(claim, True, figure)
    why = _trouble(during)
    return Claim(claim, None if why else False, figure, why)


def _trouble(during: Watched) -> str:
    watched = [during] if isinstance(during, Run | Machine) else list(during)
    machines = [it.machine if isinstance(it, Run) else it for it in watched]
    return next((machine.trouble for machine in machines if machine.trouble), "")


def _limit(
    claim: str,
    true: Callable[[float], bool],
    worst: Callable[[Iterable[float]], float],
    seen: float | Figure,
    during: Watched,
    unit: str,
) -> Claim:
    if not callable(seen):
        return _certain(claim, bool(true(seen)), words(seen, unit), during)
    runs = _runs(during)
    ends = [ends_of(seen, run) for run in runs]
    said = words(worst(end.seen for end in ends), unit)
    if invalid := next((run.invalid for run in runs if run.invalid), ""):
        return Claim(claim, None, said, f"{invalid}, so these times are not the service's")
    held = all(true(end.low) and true(end.high) for end in ends)
    if not held and all(true(end.low) or true(end.high) for end in ends):
        return Claim(claim, None, said, _trouble(runs) or NOISE)
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


def _from_tuple(claim: str, held: Any, figure: str) -> Claim:
    return Claim(claim, None if held is None else bool(held), figure)  # numpy's truth, too
