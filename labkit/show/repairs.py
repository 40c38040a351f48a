"""Many repairs in one picture: a strip each, with the p99 before it and after it."""

import io
import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from labkit.measure import ms
from labkit.show.charts import changed
from labkit.show.figures import BLUE, INK, VERMILION, panels

Pair = Sequence[dict[str, Any]]  # the figures of a run before, and of one after


class Strip(NamedTuple):
    """A repair, or a lesson without one."""

    lesson: str  # its title
    verdict: str  # what became of the lesson
    pair: Pair | None
    earlier: Pair | None  # what was measured in an earlier run


def draw_repairs(strips: Sequence[Strip], text: str) -> str:
    """Draw an SVG that takes the colours of its page, in light and in dark.

    The strips of a lesson come one after the other; the text says the same in words.
    """
    from matplotlib import rc_context

    figure, [axes] = panels(height=1.2 + 0.42 * len(strips))
    axes.set(xscale="log", xlabel="p99 (ms)", ylim=(len(strips) - 0.4, -0.6), yticks=[])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15)
    axes.grid(color=INK, alpha=0.2)
    axes.tick_params(which="both", color=INK)
    axes.spines[:].set_color(INK)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    for y, (lesson, verdict, pair, earlier) in enumerate(strips):
        if y == 0 or strips[y - 1].lesson != lesson:
            axes.axhline(y - 0.5, color=INK, lw=0.5, alpha=0.4)
            axes.text(-0.02, y - 0.2, lesson, ha="right", fontweight="bold", **beside)
            weight = "normal" if verdict.startswith("✔") else "bold"
            axes.text(1.02, y + 0.2, verdict, fontsize=8.5, fontweight=weight, **beside)
        if pair:
            before, after = _p99(pair)
            axes.text(1.02, y - 0.2, how_changed(pair), fontweight="bold", **beside)
            axes.text(-0.02, y + 0.2, names(pair), ha="right", fontsize=8.5, **beside)
            axes.plot([before, after], [y, y], color=INK, lw=1.5, alpha=0.5, zorder=1)
            axes.plot(before, y, "o", color=VERMILION, label="before")
            axes.plot(after, y, "s", color=BLUE, label="after")
            for value, side in ((max(before, after), "left"), (min(before, after), "right")):
                if not math.isnan(value):
                    above: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points"}
                    axes.annotate(f" {ms(value)} ", (value, y), ha=side, fontsize=8.5, **above)
        if earlier:
            ring: dict[str, Any] = {"ms": 11, "mfc": "none", "mec": "#888888", "zorder": 1}
            axes.plot(_p99(earlier), [y, y], "o", label="as committed", **ring)
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3, frameon=False)
    svg = io.StringIO()
    with rc_context({"svg.fonttype": "path"}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    drawn = svg.getvalue().partition("<svg ")[2].replace(INK, "currentColor")
    return f'<svg role="img" aria-label="{escape(text)}" {drawn}'


def how_changed(pair: Pair) -> str:
    """How p99 changed, in words."""
    before, after = _p99(pair)
    return "none completed" if math.isnan(before + after) else changed([before / after])


def names(pair: Pair) -> str:
    """What was measured before and after."""
    return " → ".join(run["name"] for run in pair)


def _p99(pair: Pair) -> list[float]:
    return [math.nan if run["p99_ms"] is None else run["p99_ms"] for run in pair]
