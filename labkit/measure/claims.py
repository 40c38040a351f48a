"""Claims with figures: held, broken, or, where noise is larger than the effect, inconclusive."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import median_low

from labkit.display import as_html, show
from labkit.measure.run import Run, ms

# How often a busy machine can delay one request: whenever the loop is to be woken for it, and
# whenever the server is.
_DELAYS = 5
_STARVED = 0.1  # idle share of the processors, below which every time is the machine's

_UNSURE = "; this machine is busy, or shared: run it again"
_MARK = {True: ("✔", "held"), False: ("✘", "broken"), None: ("?", "inconclusive")}


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, whether it held (None: inconclusive), and the figure that decided."""

    claim: str
    held: bool | None
    figure: str


def at_least(
    claim: str,
    times: float,
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    figure: Callable[[Run], float],
) -> Claim:
    """Claim that a figure in milliseconds is at least so many times smaller after than before.

    Each time is known to within its run's noise, so each pair's ratio lies between a low and a
    high. The high takes the noise at its worst, and five times, as a busy machine may delay a
    request again and again. The claim held if the median pair's low reaches `times`, is broken
    if no pair's high does while the machine had a tenth of its processors idle, and is
    inconclusive otherwise.

    Args:
        claim: The sentence.
        times: How many times smaller.
        before: A run, or several.
        after: As many runs, each taken next to its partner.
        figure: Takes a run, gives milliseconds: `lambda run: run.latency().p99`.
    """
    pairs = list(zip(as_runs(before), as_runs(after), strict=True))
    lows, highs, ratios = [], [], []
    for b, a in pairs:
        slow, fast = figure(b), figure(a)
        if math.isnan(slow) or math.isnan(fast):
            return Claim(claim, False, "no figure: no such request completed")
        ratios.append(slow / fast if fast else math.inf)
        lows.append((slow - b.noise_ms) / fast if fast else math.inf)
        noise = _DELAYS * a.noise_max_ms
        highs.append(slow / (fast - noise) if fast > noise else math.inf)
    # A thread that sleeps is woken in time even where those that compute wait for a processor.
    starved = min(run.idle for pair in pairs for run in pair) < _STARVED
    broken = max(highs) < times and not starved
    held = True if median_low(lows) >= times else False if broken else None
    shown = " → ".join(ms(figure(run)) for run in pairs[typical(ratios)])
    return Claim(claim, held, f"{spread(ratios)}, {shown} ms")


def verify(*claims: Claim | tuple[str, bool | None, str]) -> None:
    """Show each claim with its verdict and its figure.

    A claim is what `at_least` returns, or a tuple: the sentence, whether it held, the figure.
    Beside an inconclusive one stands what to do.
    """
    checked = []
    for claim in claims:
        text, held, figure = astuple(claim) if isinstance(claim, Claim) else claim
        checked.append(Claim(text, None if held is None else bool(held), figure))  # numpy's, too
    rows = []
    for c in checked:
        rows.append((" ".join(_MARK[c.held]), c.claim, c.figure + _UNSURE * (c.held is None)))
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


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
