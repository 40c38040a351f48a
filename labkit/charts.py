"""Pictures and tables of runs: one message each, and a text that says the same."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit.claims import as_runs, spread
from labkit.display import show
from labkit.experiment import Run, ms

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart; never colour alone.
BLUE, VERMILION, ORANGE, GREEN, INK = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#222222"
_WIDTH, _DPI = 9.0, 144  # inches; twice the pixels that are shown, for sharp screens


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
    axes.bar_label(drawn, [_number(v) for v in values.values()], padding=4, fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    said = "; ".join(f"{name}: {_number(value)}" for name, value in values.items())
    _show(figure, title, f"{title}. {unit}: {said}.")


def stalls(run: Run) -> None:
    """Tabulate what held the loop: a row for each line, the costliest first."""
    import pandas as pd

    rows: dict[tuple[str, ...], list[float]] = {}
    for stall in run.stalls:
        where = str(stall.frame or "no look found it")
        rows.setdefault((where, stall.source, stall.cause), []).append(stall.duration_ms)
    table = pd.DataFrame(
        [(*key, len(times), max(times), sum(times)) for key, times in rows.items()],
        columns=["line", "source", "cause", "stalls", "longest (ms)", "in all (ms)"],
    ).sort_values("in all (ms)", ascending=False)
    if table.empty:
        show(f"{run.name}: nothing held the loop.")
    else:
        show_table(table)


def summary(runs: Sequence[Run], *, offer: str | None = None) -> None:
    """Tabulate runs, one a row."""
    import pandas as pd

    rows = []
    for run in runs:
        of = offer or run.victim
        latency = run.latency(of)
        longest = max((stall.duration_ms for stall in run.stalls), default=0.0)
        name = run.name + " (debug mode was on)" * run.debug
        rows.append(
            (
                name,
                latency.count,
                run.failed(of),
                latency.p50,
                latency.p99,
                latency.max,
                len(run.stalls),
                longest,
            )
        )
    columns = ["run", "completed", "failed", "p50 (ms)", "p99 (ms)", "max (ms)", "stalls"]
    show_table(pd.DataFrame(rows, columns=[*columns, "longest stall (ms)"]))


def show_table(table: pd.DataFrame) -> None:
    """Show a table as HTML and as text."""
    written: Any = {"index": False, "float_format": _number}
    html = table.to_html(border=0, **written)
    show(table.to_string(**written), html=html)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    for stall in run.stalls:
        begin = stall.start_s
        axes.axvspan(begin, begin + stall.duration_ms / 1e3, color=ORANGE, alpha=0.35, lw=0)
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


def _limits(panels: Sequence[Axes], runs: Sequence[Run], offer: str) -> None:
    from matplotlib.ticker import FuncFormatter

    times = [t for r in runs for t in r.requests.latency_ms[r.requests.offer == offer] if t > 0]
    for axes in panels:
        axes.set_yscale("log")
        axes.set_ylim(min(times) / 1.6, max(times) * 1.6)
        axes.set_xlim(0, max(run.seconds for run in runs))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _panels(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A card of its own colour: as readable in a dark theme as in a light one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), facecolor="white", layout="constrained")
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
