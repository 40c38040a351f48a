"""Pictures of plain figures: bars, parts, lines, dots; and what all pictures share."""

from __future__ import annotations

import io
import math
import numbers
import textwrap
from collections.abc import Mapping, Sequence
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
SERIES = (VERMILION, BLUE, GREEN, ORANGE, "#CC79A7")
_HATCHES = ("", "//", "", "..", "xx")
DASHES = ("-", "--", "-.", ":", "-")
_MARKERS = ("o", "s", "^", "D", "v")
_WIDTH, _DPI = 9.0, 176  # inches; twice the pixels that are shown, for sharp screens


def bars(
    values: Mapping[str, float],
    *,
    title: str,
    unit: str,
    predicted: Sequence[float] | None = None,
) -> None:
    """Chart one figure for each of several things.

    Args:
        values: The name of each thing, and its figure.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit: "p99 (ms)".
        predicted: What the reader expected of each, if anything.
    """
    if predicted is not None:
        listed = isinstance(predicted, list | tuple) and len(predicted) == len(values)
        if not (listed and all(map(_is_guess, predicted))):
            example = [10 * (i + 1) for i in range(len(values))]
            raise LabError(
                f"predicted is {predicted!r}. Expected {len(values)} figures, such as {example}, "
                "or None: no guess."
            )
    figure, [axes] = panels(height=1.3 + 0.42 * len(values))
    drawn = axes.barh(list(values), list(values.values()), color=BLUE, height=0.6)
    axes.bar_label(drawn, [number(v) for v in values.values()], padding=4, fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    said = "; ".join(f"{name}: {number(value)}" for name, value in values.items())
    if predicted is not None:
        axes.plot(predicted, list(values), color=PREDICTED, marker="D", ms=9, mec="white", ls="")
        axes.set_xlabel(f"{unit}; ◆ is what you predicted")
        said += f". Predicted: {'; '.join(map(number, predicted))}"
    save(figure, title, f"{title}. {unit}: {said}.")


def _is_guess(it: object, lowest: float = 0) -> bool:
    return isinstance(it, numbers.Real) and not isinstance(it, bool) and lowest <= float(it) < 1e9


def lay_over(axes: Axes, predicted: float | None, unit: str = "") -> str:
    """Draw the one figure that the reader predicted over what was measured; return it in words.

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
    (low, high), room = axes.get_ylim(), 1.6 if log else 1.1  # for the words above the line
    axes.set_ylim(min(low, predicted / room), max(high, predicted * room))
    axes.axhline(predicted, color=PREDICTED, lw=2, ls=":")
    where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom"}
    axes.text(0.01, predicted, f"you predicted {said}", color=PREDICTED, fontweight="bold", **where)
    return f" Predicted: {said}."


def stacked(parts: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> None:
    """Chart what several things are made of: a bar each, cut into its parts.

    Args:
        parts: For each bar's name, its parts' names and figures, in the order of the bar.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit.
    """
    figure, [axes] = panels(height=1.6 + 0.5 * len(parts))
    names = list(dict.fromkeys(name for bar in parts.values() for name in bar))
    left = dict.fromkeys(parts, 0.0)
    for name, colour, hatch in zip(names, cycle(SERIES), cycle(_HATCHES), strict=False):
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
) -> None:
    """Chart how figures change with a size, a rate, or a position.

    Args:
        x: Where each figure stands.
        series: For each line's name, a figure for each x; NaN leaves a gap.
        title: The chart's message, as a sentence.
        x_unit: What x is, with its unit.
        unit: What the figures are, with their unit.
        log: Whether figures differ by orders, and the axis is logarithmic.
        predicted: The figure that the reader expected, if any.
    """
    figure, [axes] = panels(height=3.4)
    for (name, values), colour, dashes, marker in zip(
        series.items(), cycle(SERIES), cycle(DASHES), cycle(_MARKERS), strict=False
    ):
        axes.plot(x, values, color=colour, ls=dashes, marker=marker, ms=5, label=name)
    if log:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(unit)
    axes.legend(loc="best", fontsize=9)
    if all(at == int(at) for at in x):
        axes.locator_params("x", integer=True)
    few = sorted({*range(0, len(x), max(1, len(x) // 8)), len(x) - 1})  # enough to read aloud
    said = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{number(list(values)[i])} at {number(list(x)[i])}"
            for i in few
            if not math.isnan(list(values)[i])
        )
        for name, values in series.items()
    )
    guess = lay_over(axes, predicted)
    save(figure, title, f"{title}. {unit} over {x_unit}: {said}.{guess}")


def dots(table: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> None:
    """Chart several figures for each of several things, on a logarithmic axis.

    Args:
        table: For each row's name, the figures by name.
        title: The chart's message, as a sentence.
        unit: What the figures are, with their unit.
    """
    figure, [axes] = panels(height=1.6 + 0.42 * len(table))
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    for name, colour, marker in zip(names, cycle(SERIES), cycle(_MARKERS), strict=False):
        values = [row.get(name, float("nan")) for row in table.values()]
        axes.plot(values, list(table), color=colour, marker=marker, ms=8, ls="", label=name)
    axes.invert_yaxis()
    axes.margins(y=0.1)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_xlabel(unit)
    figure.legend(loc="outside lower center", ncols=len(names), fontsize=9, frameon=False)
    said = "; ".join(
        f"{row}: " + ", ".join(f"{name} {number(value)}" for name, value in values.items())
        for row, values in table.items()
    )
    save(figure, title, f"{title}. {unit}: {said}.")


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


def save(figure: Figure, title: str, said: str, data: dict[str, Any] | None = None) -> None:
    """Give a figure its title, and show it with the text that says the same."""
    lines = textwrap.fill(title, 80)
    figure.suptitle(lines, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    show(said, png=png.getvalue(), data=data)


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 1, 10, 100, and between them only where it is short of a decade."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(Plain(minor_thresholds=(1, 0.4)))
