"""Pictures of plain figures, bars and lines; and what all pictures share."""

from __future__ import annotations

import io
import math
import numbers
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

from labkit.display import number, show
from labkit.errors import LabError
from labkit.measure import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart; never colour alone.
BLUE, VERMILION, ORANGE, GREEN, INK = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#222222"
PREDICTED = "#7A3E9D"  # in no series: a guess is not to be taken for a measurement
_LINES = ((VERMILION, "-", "o"), (BLUE, "--", "s"), (GREEN, "-.", "^"), (ORANGE, ":", "D"))
_PLAIN: dict[Any, Any] = {"text.parse_math": False}  # between two `$1` of a query stands no formula
_WIDTH, _DPI = 9.0, 176  # inches; twice the pixels that are shown, for sharp screens


def bars(
    values: Mapping[str, float], *, title: str, unit: str, predicted: Sequence[float] | None = None
) -> None:
    """Chart one figure for each of several things.

    Args:
        values: For each thing's name, its figure.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit: "p99 (ms)".
        predicted: What the reader expected of each, if anything.

    Raises:
        LabError: There is nothing to draw, there are not as many predictions as bars, or one is no
            figure; or a value is none.
    """
    if wrong := [it for it in values.values() if not isinstance(it, numbers.Number)]:
        raise LabError(f"bars() was given {wrong[0]!r:.40}. Expected a figure by each name.")
    known = {name: value if math.isfinite(value) else 0.0 for name, value in values.items()}
    if not known:
        raise LabError("bars() was given nothing. Expected a figure by each name: {'before': 20}.")
    figure, [axes] = panels(height=1.3 + 0.5 * len(values))
    names = [textwrap.fill(name, 50) for name in known]
    drawn = axes.barh(names, [*known.values()], height=0.5, color=BLUE)
    axes.bar_label(drawn, list(map(number, values.values())), padding=4, color=INK)
    axes.invert_yaxis()
    least, most = min(0, *known.values()), max(1e-9, *known.values())
    axes.set(xlim=(1.12 * least, 1.12 * most), xlabel=unit)
    axes.grid(axis="y", visible=False)
    whole_numbers(axes.xaxis, known.values())
    said = "; ".join(f"{name}: {number(value)}" for name, value in values.items())
    if predicted is not None:
        wanted = f"{len(values)} figures, such as {[*range(10, 10 * len(values) + 1, 10)]}"
        predicted = _checked(predicted, wanted, count=len(values))
        below = [row + 0.38 for row in range(len(values))]  # not over the figure beside the bar
        look: dict[str, Any] = {"color": PREDICTED, "marker": "D", "ms": 7, "mec": "white"}
        axes.plot(predicted, below, ls="", label="you predicted", **look)
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.05 * max(predicted)))
        said += f". Predicted: {'; '.join(map(number, predicted))}"
    save(figure, title, f"{title}. {unit}: {said}.")


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_unit: str,
    unit: str,
    log: bool = False,
    predicted: float | None = None,
    during: Run | None = None,
) -> None:
    """Chart how figures change with a size, a rate, a position or the time.

    Args:
        x: Where each figure stands.
        series: For each line's name, a figure for each x; NaN leaves a gap.
        title: The chart's message, as a sentence.
        x_unit: What x is, with its unit.
        unit: What the figures are, with their unit.
        log: Whether figures differ by orders, and the axis is logarithmic.
        predicted: The figure that the reader expected, if any.
        during: The run that x is the time of: its stalls are drawn, and each figure as it holds
            until the next.
    """
    figure, [axes] = panels(height=3.7)
    x, columns = list(x), {name: list(column) for name, column in series.items()}
    if not x or any(len(column) != len(x) for column in columns.values()):
        many = {name: len(column) for name, column in columns.items()}
        raise LabError(f"lines() was given {many} figures for {len(x)} x. Expected one for each x.")
    for (name, column), (colour, dashes, marker) in zip(columns.items(), cycle(_LINES)):
        look: dict[str, Any] = {"drawstyle": "steps-post"} if during else {"marker": marker}
        axes.plot(x, column, color=colour, ls=dashes, label=name, ms=5, **look)
    if log:
        logarithmic(axes)
    else:
        axes.set_ylim(bottom=None if axes.dataLim.y0 < 0 else 0)
        whole_numbers(axes.yaxis, chain(*columns.values()))
    if during:
        shade(axes, during)
        axes.set_xlim(0, during.seconds)
    else:
        whole_numbers(axes.xaxis, x)
    axes.set(xlabel=x_unit, ylabel=unit)
    few = sorted({*range(0, len(x), max(1, len(x) // 8)), len(x) - 1})  # to read out
    said = "; ".join(
        f"{name}: "
        + ", ".join(f"{number(column[i])} at {number(x[i])}" for i in few if column[i] == column[i])
        for name, column in columns.items()
    )
    guess = lay_over(axes, predicted)
    save(figure, title, f"{title}. {unit} over {x_unit}: {said}.{guess}")


def lay_over(axes: Axes, predicted: float | None, unit: str = "") -> str:
    """Draw the one figure that the reader predicted over what was measured; return it in words."""
    if predicted is None:
        return ""
    wanted = f"one figure{unit and f' in {unit}'}, such as 20"
    lowest = 1e-9 if axes.get_yscale() == "log" else 0.0
    [predicted] = _checked(predicted, wanted, lowest=lowest)
    said = f"{number(predicted)} {unit}".strip()
    axes.axhline(predicted, color=PREDICTED, lw=2, ls=":", label=f"you predicted {said}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, predicted / 1.1), max(high, predicted * 1.1))
    return f" Predicted: {said}."


def panels(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure on white, and its panels: readable in dark themes and in light."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=(_WIDTH, height), facecolor="white", layout=margins)
    with rc_context(_PLAIN):
        panels = list(figure.subplots(rows, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels:
        axes.grid(axis="both", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def save(figure: Figure, title: str, said: str, data: dict[str, Any] | None = None) -> None:
    """Give a figure its title and its legend, and show it with the text that says the same.

    The legend stands below the panels: it never covers what was measured.
    """
    from matplotlib import rc_context

    named = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    wrapped, png = textwrap.fill(title, 80), io.BytesIO()
    with rc_context(_PLAIN):
        if named and not figure.legends:
            look: dict[str, Any] = {"ncols": len(named), "fontsize": 9, "frameon": False}
            figure.legend(named.values(), named.keys(), loc="outside lower center", **look)
        figure.suptitle(wrapped, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.savefig(png, format="png", dpi=_DPI)
    show(said, png=png.getvalue(), data=data)


def shade(axes: Axes, run: Run) -> None:
    """Mark when the loop served nobody, and when the machine did not let this process run."""
    stalled: dict[str, Any] = {"color": ORANGE, "alpha": 0.35, "label": "loop stalled"}
    paused: dict[str, Any] = {"fc": "#bbbbbb", "ec": "white", "hatch": "//"}
    for stall in run.stalls:
        end = stall.start_s + stall.duration_ms / 1e3
        axes.axvspan(stall.start_s, end, lw=0, zorder=0, **stalled)
    for start, end in run.machine.pauses:
        axes.axvspan(start, end, lw=0, zorder=0, label="the machine paused", **paused)


def whole_numbers(axis: Any, values: Iterable[float]) -> None:
    """Count in whole numbers where all values are: there are no 2.5 warnings."""
    whole = all(value == round(value) for value in values if math.isfinite(value))
    axis.get_major_locator().set_params(integer=whole)


def logarithmic(axes: Axes) -> None:
    """Make the y axis logarithmic, and label it 1, 2, 5, 10, 20 …: every panel has some of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _checked(predicted: Any, wanted: str, count: int = 1, lowest: float = 0.0) -> Sequence[float]:
    """What was predicted, as a list of figures that a chart can show."""
    them = predicted if isinstance(predicted, list | tuple) else [predicted]
    figures = [it for it in them if isinstance(it, numbers.Real) and not isinstance(it, bool)]
    good = [it for it in figures if lowest <= float(it) < 1e9]
    if not len(them) == len(good) == count:
        raise LabError(f"predicted is {predicted!r}. Expected {wanted}, or None: no guess.")
    return them
