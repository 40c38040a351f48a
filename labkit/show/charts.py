"""Pictures of runs: one message each, and a text that says the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from statistics import median_low
from typing import TYPE_CHECKING, Any

from labkit.display import number
from labkit.errors import LabError
from labkit.measure import Run, ms, partners, spread, typical
from labkit.show.figures import (
    BLUE,
    INK,
    LINES,
    ORANGE,
    lay_over,
    legend,
    panels,
    plain_numbers,
    save,
    whole_numbers,
)
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
    latency = run.latency(offer)
    if title is None:
        times = f"p50 {ms(latency.p50)} ms, p99 {ms(latency.p99)} ms"
        title = f"{offer}: {times if latency.count else latency}"
    figure, [axes] = panels(height=3.4)
    _dots(axes, run, offer)
    axes.set_xlabel("intended start of the request (s)")
    legend(figure, axes)
    _limits([axes], [run], offer)
    guess = lay_over(axes, predicted, "ms", latency.p99)
    save(figure, title, f"{title}. {_said(run, offer)}{guess}")


def compare(
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    *,
    offer: str | None = None,
    title: str | None = None,
    predicted: float | None = None,
) -> None:
    """Chart two runs below each other on the same axes, with a table, and the same in words.

    Args:
        before: A run, or several; the pair with the median ratio is drawn.
        after: As many, each taken next to its partner.
        offer: Which requests; the victim's if not given.
        title: The chart's message; if not given, how p99 changed.
        predicted: The p99 that the reader expected after the repair (ms), if any.
    """
    pairs: list[tuple[Run, Run]] = partners(before, after)
    offer = offer or pairs[0][0].victim
    ratios = [b.latency(offer).p99 / a.latency(offer).p99 for b, a in pairs]
    if any(map(math.isnan, ratios)):
        raise LabError(f"In one of the runs no {offer!r} completed, so there is no p99 to compare.")
    b, a = pairs[typical(ratios)]
    p99 = f"{ms(b.latency(offer).p99)} to {ms(a.latency(offer).p99)} ms"
    lower = median_low(ratios) >= 1
    by = spread(ratios, "lower") if lower else spread([1 / r for r in ratios], "higher")
    title = title or f"{offer}: p99 from {p99}, {by}"
    lost, lost_before = a.failed(offer), b.failed(offer)
    if lost > lost_before:
        title += f"; but {lost:,} failed, and {lost_before:,} before"
    if trouble := next((r.machine.trouble for r in (b, a) if r.machine.pauses), ""):
        title += f"; but {trouble}"
    figure, [above, below] = panels(height=5.4, rows=2)
    for axes, run, when in ((above, b, "before"), (below, a, "after")):
        _dots(axes, run, offer)
        axes.set_title(f"{when}: {run.name}", loc="left", fontsize=10, color=INK)
    below.set_xlabel("intended start of the request (s)")
    legend(figure, above, below)
    _limits([above, below], [b, a], offer)
    guess = lay_over(below, predicted, "ms", a.latency(offer).p99)
    above.set_ylim(below.get_ylim())  # the same axes, whatever was guessed
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
    figure, [axes] = panels(height=3.4)
    readings = run.gauges
    if readings.empty:
        raise LabError(f"{run.name!r} has no gauge. Expected load.gauge(...) in its scenario.")
    for name, (colour, dashes, _) in zip(readings, cycle(LINES), strict=False):
        axes.step(readings.index, readings[name], where="post", color=colour, ls=dashes, label=name)
    _shade(axes, run)
    axes.set_xlim(0, run.seconds)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time (s)")
    axes.set_ylabel(unit)
    whole_numbers(axes.yaxis, readings.stack())
    legend(figure, axes)
    said = "; ".join(
        f"{name}: {number(readings[name].min())} to {number(readings[name].max())}"
        for name in readings
    )
    guess = lay_over(axes, predicted)
    save(figure, title, f"{title}. {unit}: {said}.{guess}")


def _said(run: Run, offer: str) -> str:
    failed = f", {run.failed(offer):,} failed" if run.failed(offer) else ""
    return f"{run.name}: {run.latency(offer)}{failed}; {run.stalls_in_words}."


def _dots(axes: Axes, run: Run, offer: str) -> None:
    requests = run.requests[run.requests.offer == offer]
    named = bool(run.failed(offer))
    for completed, marker, label in ((True, "o", "completed"), (False, "x", "failed")):
        some = requests[requests.error.isna() == completed]
        if len(some):
            look: dict[str, Any] = {"s": 9, "c": BLUE, "linewidths": 0}
            if not completed:
                look = {"s": 22, "c": INK, "linewidths": 1}
            times = (some.intended_s, some.latency_ms)
            axes.scatter(*times, marker=marker, alpha=0.7, label=label if named else None, **look)
    _shade(axes, run)
    if run.stalls:
        longest = max(run.stalls, key=lambda stall: stall.duration_ms)
        end = longest.start_s + longest.duration_ms / 1e3
        late = end > 0.8 * run.seconds  # no room to its right
        at, side = (longest.start_s, "right") if late else (end, "left")
        stalled = f" loop stalled {ms(longest.duration_ms)} ms "
        axes.text(at, 0.6, stalled, transform=axes.get_xaxis_transform(), ha=side, color=INK)
    axes.set_ylabel("latency (ms)")
    if not math.isnan(p99 := run.latency(offer).p99):
        axes.axhline(p99, color=INK, lw=1, ls="--")
        where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
        axes.text(1, p99, f" p99 {ms(p99)} ms", color=INK, **where)


def _shade(axes: Axes, run: Run) -> None:
    for stall in run.stalls:
        end = stall.start_s + stall.duration_ms / 1e3
        axes.axvspan(stall.start_s, end, color=ORANGE, alpha=0.35, lw=0)
    for start, end in run.machine.pauses:
        axes.axvspan(start, end, color="#bbbbbb", hatch="//", lw=0, label="the machine paused")


def _limits(panels: Sequence[Axes], runs: Sequence[Run], offer: str) -> None:
    times = [t for r in runs for t in r.requests.latency_ms[r.requests.offer == offer] if t > 0]
    for axes in panels:
        axes.set_yscale("log")
        axes.set_ylim(min(times) / 1.6, max(times) * 1.6)
        axes.set_xlim(0, max(run.seconds for run in runs))
        plain_numbers(axes.yaxis)
