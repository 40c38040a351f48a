"""Pictures of runs: one message each, and a text that says the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.measure import DOUBT, Run, more_failed, ms, partners, spread, typical
from labkit.show.figures import BLUE, INK, lay_over, lines, logarithmic, panels, save, shade
from labkit.show.tables import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def timeline(
    run: Run, *, offer: str | None = None, title: str | None = None, predicted: float | None = None
) -> None:
    """Chart the latency of each request of an offer over time, with the loop's stalls behind it.

    Args:
        run: What to show.
        offer: Which requests; the victim's if not given.
        title: The chart's message, as a sentence.
        predicted: The p99 that the reader expected (ms), if any: it is drawn, too.
    """
    offer = offer or run.victim
    title = title or f"{offer}: {run.latency(offer)}"
    figure, [axes] = panels(height=3.6)
    _draw_requests([axes], {run.name: run}, offer)
    guess = lay_over(axes, predicted, "ms")
    save(figure, title, f"{title}. {_said(run, offer)}{guess}")


def compare(
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    *,
    offer: str | None = None,
    predicted: float | None = None,
) -> None:
    """Chart two runs below each other on the same axes, with a table, and the same in words.

    Args:
        before: A run, or several; the pair with the median ratio is drawn.
        after: As many, each taken next to its partner.
        offer: Which requests; the victim's if not given.
        predicted: The p99 that the reader expected after the repair (ms), if any.
    """
    pairs: list[tuple[Run, Run]] = partners(before, after)
    named, offer = offer, offer or pairs[0][0].victim
    ratios = [b.latency(offer).p99 / a.latency(offer).p99 for b, a in pairs]
    if any(map(math.isnan, ratios)):
        raise LabError(f"In one of the runs no {offer!r} completed, so there is no p99 to compare.")
    b, a = pairs[typical(ratios)]
    was, now, change = b.latency(offer).p99, a.latency(offer).p99, changed(ratios)
    if abs(was - now) < max(b.noise_ms, a.noise_ms):
        change = f"unchanged: {spread(ratios, 'is within the noise')}"
    title = f"{offer}: p99 from {ms(was)} to {ms(now)} ms, {change}"
    befores, afters = map(list, zip(*pairs, strict=True))
    title += more_failed(befores, afters, named)[2].replace("; ", "; but ")
    paused = next((run.machine.trouble for run in (b, a) if run.machine.pauses), "")
    title += "".join(f"; but {why}" for why in (paused, a.invalid or b.invalid) if why)
    figure, [above, below] = panels(height=5.4, rows=2)
    _draw_requests([above, below], {f"before: {b.name}": b, f"after: {a.name}": a}, offer)
    guess = lay_over(below, predicted, "ms")
    said = f"Before: {_said(b, offer)} After: {_said(a, offer)}{guess}"
    save(figure, title, f"{title}. {said}", {"pair": [b.figures(offer), a.figures(offer)]})
    summary([b, a], offer=offer)


def gauges(
    run: Run, *, title: str, unit: str = "connections", predicted: float | None = None
) -> None:
    """Chart a run's gauges over time, with the loop's stalls behind them.

    Args:
        run: A run whose scenario called `load.gauge`.
        title: The chart's message, as a sentence.
        unit: What the gauges count.
        predicted: The reading that the reader expected, if any.
    """
    if run.gauges.empty:
        raise LabError(f"{run.name!r} has no gauge. Expected load.gauge(...) in its scenario.")
    series: Any = run.gauges  # a mapping from names to columns
    at, time = list(series.index), "time (s)"
    lines(at, series, title=title, x_unit=time, unit=unit, predicted=predicted, during=run)


def changed(ratios: Sequence[float]) -> str:
    """How a figure changed, in words, by its ratios of before to after."""
    ratio = median_low(ratios)
    if 1 / DOUBT[1] < ratio < DOUBT[1]:
        return f"hardly changed: {spread(ratios)}"
    inverse = [1 / it for it in ratios]
    return spread(ratios, "lower") if ratio > 1 else spread(inverse, "higher", 1 / ratio)


def _said(run: Run, offer: str) -> str:
    failed = f", {run.failed(offer):,} failed" if run.failed(offer) else ""
    return f"{run.name}: {run.latency(offer)}{failed}; {run.stalls_in_words}."


def _draw_requests(panels: Sequence[Axes], runs: Mapping[str, Run], offer: str) -> None:
    """Draw each run in its panel: a dot a request, its p99, and what held the loop meanwhile."""
    asked = {name: run.requests[run.requests.offer == offer] for name, run in runs.items()}
    times = [t for requests in asked.values() for t in requests.latency_ms if t > 0]
    logarithmic(panels[0])  # the others share its axes
    longest = max(run.seconds for run in runs.values())
    panels[0].set(xlim=(0, longest), ylim=(min(times) / 1.6, max(times) * 1.6))
    panels[-1].set_xlabel("intended start of the request (s)")
    for axes, (name, run) in zip(panels, runs.items(), strict=True):
        axes.set_title(f"{name}; {run.stalls_in_words}", loc="left", fontsize=10, color=INK)
        axes.set_ylabel("latency (ms)")
        done, failed = (asked[name][asked[name].error.isna() == it] for it in (True, False))
        dot: dict[str, Any] = {"s": 9, "c": BLUE, "lw": 0, "alpha": 0.7}
        if len(failed):
            cross: dict[str, Any] = {"s": 22, "c": INK, "lw": 1, "alpha": 0.7, "marker": "x"}
            axes.scatter(failed.intended_s, failed.latency_ms, label="failed", **cross)
            dot["label"] = "completed"
        axes.scatter(done.intended_s, done.latency_ms, **dot)
        shade(axes, run)
        if not math.isnan(p99 := run.latency(offer).p99):
            axes.axhline(p99, color=INK, lw=1, ls="--")
            where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(1, p99, f" p99 {ms(p99)} ms", color=INK, **where)
