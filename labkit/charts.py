"""Pictures of runs: one message each, and a text that says the same."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit.claims import as_runs, spread
from labkit.display import show
from labkit.run import Run, ms
from labkit.tables import number, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart; never colour alone.
BLUE, VERMILION, ORANGE, GREEN, INK = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#222222"
_SERIES = (VERMILION, BLUE, GREEN, ORANGE, "#CC79A7")
_HATCHES = ("", "//", "", "..", "xx")
_DASHES = ("-", "--", "-.", ":", "-")
_MARKERS = ("o", "s", "^", "D", "v")
_WIDTH, _DPI = 9.0, 176  # inches; twice the pixels that are shown, for sharp screens


def timeline(run: Run, *, offer: str | None = None, title: str | None = None) -> None:
    """Chart the latency of each request of an offer over time, with the loop's stalls behind it.

    Args:
        run: What to show.
        offer: Which requests; the victim's if not given.
        title: The chart's message, as a sentence.
    """
    offer = offer or run.victim
    latency = run.latency(offer)
    title = title or f"{offer}: p50 {ms(latency.p50)} ms, p99 {ms(latency.p99)} ms"
    figure, [axes] = _panels(height=3.2)
    _dots(axes, run, offer, VERMILION if run.stalls else BLUE)
    axes.set_xlabel("intended start of the request (s)")
    _limits([axes], [run], offer)
    _show(figure, title, f"{title}. {_said(run, offer)}")


def compare(
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    *,
    offer: str | None = None,
    title: str | None = None,
) -> None:
    """Chart two runs below each other on the same axes, with a table, and the same in words.

    Args:
        before: A run, or several; the pair with the median ratio is drawn.
        after: As many, each taken next to its partner.
        offer: Which requests; the victim's if not given.
        title: The chart's message; if not given, how p99 changed.
    """
    befores, afters = as_runs(before), as_runs(after)
    offer = offer or befores[0].victim
    pairs = list(zip(befores, afters, strict=True))
    ratios = [b.latency(offer).p99 / a.latency(offer).p99 for b, a in pairs]
    middle = min(range(len(pairs)), key=lambda i: abs(ratios[i] - median(ratios)))
    b, a = pairs[middle]
    p99 = f"{ms(b.latency(offer).p99)} to {ms(a.latency(offer).p99)} ms"
    lower = median(ratios) >= 1
    by = f"{spread(ratios if lower else [1 / r for r in ratios])} {'lower' if lower else 'higher'}"
    title = title or f"{offer}: p99 from {p99}, {by}"
    figure, [above, below] = _panels(height=5.2, rows=2)
    for axes, run, when, colour in ((above, b, "before", VERMILION), (below, a, "after", BLUE)):
        _dots(axes, run, offer, colour)
        axes.set_title(f"{when}: {run.name}", loc="left", fontsize=10, color=colour)
    below.set_xlabel("intended start of the request (s)")
    _limits([above, below], [b, a], offer)
    said = f"Before: {_said(b, offer)} After: {_said(a, offer)}"
    _show(figure, title, f"{title}. {said}", {"pair": [b.figures(), a.figures()]})
    summary([b, a])


def bars(values: Mapping[str, float], *, title: str, unit: str) -> None:
    """Chart one figure for each of several things.

    Args:
        values: The name of each thing, and its figure.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit: "p99 (ms)".
    """
    figure, [axes] = _panels(height=1.3 + 0.42 * len(values))
    drawn = axes.barh(list(values), list(values.values()), color=BLUE, height=0.6)
    axes.bar_label(drawn, [number(v) for v in values.values()], padding=4, fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    said = "; ".join(f"{name}: {number(value)}" for name, value in values.items())
    _show(figure, title, f"{title}. {unit}: {said}.")


def stacked(parts: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> None:
    """Chart what several things are made of: a bar each, cut into its parts.

    Args:
        parts: For each bar's name, its parts' names and figures, in the order of the bar.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit.
    """
    figure, [axes] = _panels(height=1.6 + 0.5 * len(parts))
    names = list(dict.fromkeys(name for bar in parts.values() for name in bar))
    left = dict.fromkeys(parts, 0.0)
    for name, colour, hatch in zip(names, _SERIES, _HATCHES, strict=False):
        widths = {bar: values.get(name, 0.0) for bar, values in parts.items()}
        axes.barh(
            list(widths),
            list(widths.values()),
            left=list(left.values()),
            color=colour,
            hatch=hatch,
            edgecolor="white",
            height=0.6,
            label=name,
        )
        left = {bar: left[bar] + widths[bar] for bar in parts}
    for bar, total in left.items():
        axes.annotate(f" {number(total)}", (total, bar), va="center", fontsize=10, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(right=1.1 * max(left.values()))
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=len(names), fontsize=9, frameon=False)
    said = "; ".join(
        f"{bar}: " + ", ".join(f"{name} {number(value)}" for name, value in values.items())
        for bar, values in parts.items()
    )
    _show(figure, title, f"{title}. {unit}: {said}.")


def gauges(run: Run, *, title: str, unit: str = "connections") -> None:
    """Chart a run's gauges over time, with the loop's stalls behind them.

    Args:
        run: A run whose scenario called `load.gauge`.
        title: The chart's message, as a sentence.
        unit: What the gauges count.
    """
    figure, [axes] = _panels(height=3.2)
    readings = run.gauges
    for name, colour, dashes in zip(readings, _SERIES, _DASHES, strict=False):
        axes.step(readings.index, readings[name], where="post", color=colour, ls=dashes, label=name)
    _shade(axes, run)
    axes.set_xlim(0, run.seconds)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time (s)")
    axes.set_ylabel(unit)
    figure.legend(
        loc="outside lower center", ncols=len(readings.columns), fontsize=9, frameon=False
    )
    said = "; ".join(
        f"{name}: {number(readings[name].min())} to {number(readings[name].max())}, "
        f"median {number(readings[name].median())}"
        for name in readings
    )
    _show(figure, title, f"{title}. {unit}: {said}.")


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_unit: str,
    unit: str,
    log: bool = False,
) -> None:
    """Chart how figures change with a size, a rate, or a position.

    Args:
        x: Where each figure stands.
        series: For each line's name, a figure for each x; NaN leaves a gap.
        title: The chart's message, as a sentence.
        x_unit: What x is, with its unit.
        unit: What the figures are, with their unit.
        log: Whether figures differ by orders, and the axis is logarithmic.
    """
    figure, [axes] = _panels(height=3.4)
    for (name, values), colour, dashes, marker in zip(
        series.items(), _SERIES, _DASHES, _MARKERS, strict=False
    ):
        axes.plot(x, values, color=colour, ls=dashes, marker=marker, ms=5, label=name)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plainly)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(unit)
    axes.legend(loc="best", fontsize=9)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{number(v)} at {number(at)}" for at, v in zip(x, vs, strict=True))
        for name, vs in series.items()
    )
    _show(figure, title, f"{title}. {unit} over {x_unit}: {said}.")


def dots(table: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> None:
    """Chart several figures for each of several things, on a logarithmic axis.

    Args:
        table: For each row's name, the figures by name.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit.
    """
    figure, [axes] = _panels(height=1.6 + 0.42 * len(table))
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    for name, colour, marker in zip(names, _SERIES, _MARKERS, strict=False):
        values = [row.get(name, float("nan")) for row in table.values()]
        axes.plot(values, list(table), color=colour, marker=marker, ms=8, ls="", label=name)
    axes.invert_yaxis()
    axes.margins(y=0.1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_plainly)
    axes.set_xlabel(unit)
    figure.legend(loc="outside lower center", ncols=len(names), fontsize=9, frameon=False)
    said = "; ".join(
        f"{row}: " + ", ".join(f"{name} {number(value)}" for name, value in values.items())
        for row, values in table.items()
    )
    _show(figure, title, f"{title}. {unit}: {said}.")


def _said(run: Run, offer: str) -> str:
    longest = max((stall.duration_ms for stall in run.stalls), default=0.0)
    held = f"{len(run.stalls)} stalls, the longest {ms(longest)} ms" if run.stalls else "no stall"
    failed = f", {run.failed(offer):,} failed" if run.failed(offer) else ""
    return f"{run.name}: {run.latency(offer)}{failed}; {held}."


def _dots(axes: Axes, run: Run, offer: str, colour: str) -> None:
    requests = run.requests[run.requests.offer == offer]
    for completed, marker, label in ((True, "o", "completed"), (False, "x", "failed")):
        some = requests[requests.error.isna() == completed]
        if len(some):
            axes.scatter(
                some.intended_s,
                some.latency_ms,
                s=9 if completed else 22,
                c=colour,
                marker=marker,
                linewidths=0 if completed else 1,
                alpha=0.7,
                label=label,
            )
    _shade(axes, run)
    if run.stalls:
        longest = max(run.stalls, key=lambda stall: stall.duration_ms)
        axes.annotate(
            f" loop held {ms(longest.duration_ms)} ms",
            (longest.start_s + longest.duration_ms / 1e3, 0.6),
            xycoords=("data", "axes fraction"),
            fontsize=10,
            color=INK,
        )
    if run.failed(offer):
        axes.legend(loc="upper right", fontsize=9)
    p99 = run.latency(offer).p99
    axes.axhline(p99, color=INK, lw=1, ls="--")
    axes.annotate(
        f" p99 {ms(p99)} ms",
        (1, p99),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=10,
        color=INK,
    )
    axes.set_ylabel("latency (ms)")


def _shade(axes: Axes, run: Run) -> None:
    for stall in run.stalls:
        end = stall.start_s + stall.duration_ms / 1e3
        axes.axvspan(stall.start_s, end, color=ORANGE, alpha=0.35, lw=0)


def _limits(panels: Sequence[Axes], runs: Sequence[Run], offer: str) -> None:
    times = [t for r in runs for t in r.requests.latency_ms[r.requests.offer == offer] if t > 0]
    for axes in panels:
        axes.set_yscale("log")
        axes.set_ylim(min(times) / 1.6, max(times) * 1.6)
        axes.set_xlim(0, max(run.seconds for run in runs))
        axes.yaxis.set_major_formatter(_plainly)


def _plainly(value: float, position: float) -> str:
    return f"{value:g}"


def _panels(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A card of its own colour: as readable in a dark theme as in a light one."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=(_WIDTH, height), facecolor="white", layout=margins)
    panels = list(figure.subplots(rows, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels:
        axes.grid(axis="both", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _show(figure: Figure, title: str, said: str, data: dict[str, Any] | None = None) -> None:
    lines = textwrap.fill(title, 95)
    figure.suptitle(lines, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    show(said, png=png.getvalue(), data=data)
