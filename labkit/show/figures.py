"""Pictures of plain figures, bars and lines; and what all pictures share."""

from __future__ import annotations

import io
import math
import numbers
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from labkit.display import number, show
from labkit.errors import LabError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart; never colour alone.
BLUE, VERMILION, ORANGE, GREEN, INK = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#222222"
PREDICTED = "#7A3E9D"  # in no series: a guess is not to be taken for a measurement
_SERIES = (VERMILION, BLUE, GREEN, ORANGE, "#CC79A7")
_HATCHES = ("", "//", "", "..", "xx")
_DASHES = ("-", "--", "-.", ":", "-")
_MARKERS = ("o", "s", "^", "D", "v")
LINES = tuple(zip(_SERIES, _DASHES, _MARKERS, strict=True))
_WIDTH, _DPI = 9.0, 176  # inches; twice the pixels that are shown, for sharp screens


def bars(
    values: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    *,
    title: str,
    unit: str,
    predicted: Sequence[float] | None = None,
) -> None:
    """Chart one figure for each of several things, or the parts that it is made of.

    Args:
        values: For each thing's name, its figure; or its parts' names and figures, in order.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit: "p99 (ms)".
        predicted: What the reader expected of each, if anything.

    Raises:
        LabError: There are not as many predictions as bars, or one is no figure.
    """
    parts = {n: v if isinstance(v, Mapping) else {"": float(v)} for n, v in values.items()}
    kinds = dict.fromkeys(kind for bar in parts.values() for kind in bar)
    figure, [axes] = panels(height=1.3 + 0.5 * len(parts))
    ends = dict.fromkeys(parts, 0.0)
    colours = _SERIES if len(kinds) > 1 else (BLUE,)
    for kind, colour, hatch in zip(kinds, cycle(colours), cycle(_HATCHES), strict=False):
        widths = [bar.get(kind, 0.0) for bar in parts.values()]
        look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        lefts = list(ends.values())
        axes.barh(list(parts), widths, left=lefts, height=0.5, label=kind or None, **look)
        ends = {n: end + width for (n, end), width in zip(ends.items(), widths, strict=True)}
    for name, end in ends.items():
        axes.annotate(f" {number(end)}", (end, name), va="center", fontsize=10, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(*ends.values(), 1e-9))
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    whole_numbers(axes.xaxis, ends.values())
    legend(figure, axes)
    said = "; ".join(f"{name}: {_listed(bar)}" for name, bar in parts.items())
    if predicted is not None:
        _check_predictions(predicted, len(parts))
        below = [row + 0.38 for row in range(len(parts))]  # not over the figure beside the bar
        axes.plot(predicted, below, color=PREDICTED, marker="D", ms=7, mec="white", ls="")
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.05 * max(predicted)))
        axes.set_xlabel(f"{unit}; ◆ is what you predicted")
        said += f". Predicted: {'; '.join(map(number, predicted))}"
    save(figure, title, f"{title}. {unit}: {said}.")


def lines(
    x: Sequence[float] | Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_unit: str,
    unit: str,
    log: bool = False,
    predicted: float | None = None,
) -> None:
    """Chart how figures change with a size, a rate, a position, or from one thing to the next.

    Args:
        x: Where each figure stands: a number or a name.
        series: For each line's name, a figure for each x; NaN leaves a gap.
        title: The chart's message, as a sentence.
        x_unit: What x is, with its unit.
        unit: What the figures are, with their unit.
        log: Whether figures differ by orders, and the axis is logarithmic.
        predicted: The figure that the reader expected, if any.
    """
    figure, [axes] = panels(height=3.7)
    places: list[Any] = list(x)
    columns = {name: list(values) for name, values in series.items()}
    for (name, column), look in zip(columns.items(), cycle(LINES), strict=False):
        colour, dashes, marker = look
        axes.plot(places, column, color=colour, ls=dashes, marker=marker, ms=5, label=name)
    if log:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
        whole_numbers(axes.yaxis, (value for column in columns.values() for value in column))
    if not isinstance(places[0], str):
        whole_numbers(axes.xaxis, places)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(unit)
    legend(figure, axes)
    few = sorted({*range(0, len(places), max(1, len(places) // 8)), len(places) - 1})  # to read out
    names = [place if isinstance(place, str) else number(place) for place in places]
    said = "; ".join(
        f"{name}: "
        + ", ".join(f"{number(col[i])} at {names[i]}" for i in few if not math.isnan(col[i]))
        for name, col in columns.items()
    )
    guess = lay_over(axes, predicted)
    over = f" over {x_unit}" if x_unit else ""
    save(figure, title, f"{title}. {unit}{over}: {said}.{guess}")


def lay_over(
    axes: Axes, predicted: float | None, unit: str = "", measured: float = -math.inf
) -> str:
    """Draw the one figure that the reader predicted over what was measured; return it in words.

    Its words stand on the side of its line that is away from the line of what was `measured`.

    Raises:
        LabError: It is no figure that this axis can show.
    """
    if predicted is None:
        return ""
    log = axes.get_yscale() == "log"
    if not _is_guess(predicted, lowest=1e-9 if log else 0):
        raise LabError(
            f"predicted is {predicted!r}. Expected one figure"
            f"{f' in {unit}' if unit else ''}, such as 20, or None: no guess."
        )
    said = f"{number(predicted)} {unit}".strip()
    (low, high), room = axes.get_ylim(), 2 if log else 1.1  # for the words beside the line
    low = min(low, predicted / room) if log else low
    axes.set_ylim(low, max(high, predicted * room))
    axes.axhline(predicted, color=PREDICTED, lw=2, ls=":")
    axes.annotate(
        f"you predicted {said}",
        (0.01, predicted),
        (0, 4 if predicted >= measured else -4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        va="bottom" if predicted >= measured else "top",
        color=PREDICTED,
        fontweight="bold",
        bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},
    )
    return f" Predicted: {said}."


def panels(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
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


def legend(figure: Figure, *panels: Axes) -> None:
    """Say what is what, below the panels: it never covers what was measured."""
    named = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if named:
        look: dict[str, Any] = {"ncols": len(named), "fontsize": 9, "frameon": False}
        figure.legend(named.values(), named.keys(), loc="outside lower center", **look)


def save(figure: Figure, title: str, said: str, data: dict[str, Any] | None = None) -> None:
    """Give a figure its title, and show it with the text that says the same."""
    wrapped = textwrap.fill(title, 80)
    figure.suptitle(wrapped, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    show(said, png=png.getvalue(), data=data)


def whole_numbers(axis: Axis, values: Iterable[float]) -> None:
    """Count in whole numbers where all values are: there are no 2.5 warnings."""
    from matplotlib.ticker import MaxNLocator

    if all(value == round(value) for value in values if math.isfinite(value)):
        axis.set_major_locator(MaxNLocator(integer=True))


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 1, 10, 100, and between them only where it is short of a decade."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(Plain(minor_thresholds=(1, 0.4)))


def _listed(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}".strip() for name, value in parts.items())


def _is_guess(it: object, lowest: float = 0) -> bool:
    return isinstance(it, numbers.Real) and not isinstance(it, bool) and lowest <= float(it) < 1e9


def _check_predictions(predicted: object, count: int) -> None:
    listed = isinstance(predicted, list | tuple) and len(predicted) == count
    if not (listed and all(map(_is_guess, predicted))):  # type: ignore[call-overload]
        example = [10 * (i + 1) for i in range(count)]
        raise LabError(
            f"predicted is {predicted!r}. Expected {count} figures, such as {example}, "
            "or None: no guess."
        )
