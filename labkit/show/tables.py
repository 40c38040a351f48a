"""Tables of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.display import as_html, number, show
from labkit.measure import Run
from labkit.probe import Stall

if TYPE_CHECKING:
    import pandas as pd


def stalls(run: Run) -> None:
    """Tabulate what held the loop: a row for each line, the one that hurt most first.

    "held up" counts the requests that waited for it (its own, too), "waited" adds up for how long.
    """
    import pandas as pd

    if not run.stalls:
        show(f"{run.name}: nothing held the loop.")
        return
    by_line = defaultdict[tuple[str, ...], list[Stall]](list)
    for it in run.stalls:
        by_line[str(it.frame or "no look found it"), it.source, it.cause].append(it)
    times, waits = ["stalls", "longest (ms)", "in all (ms)"], ["held up", "waited (ms)"]
    rows = []
    for line, them in by_line.items():
        took = [it.duration_ms for it in them]
        rows.append((*line, len(them), max(took), sum(took), *run.hurt(*them)))
    table = pd.DataFrame(rows, columns=["line", "source", "cause", *times, *waits])
    show_table(table.sort_values(["waited (ms)", "in all (ms)"], ascending=False))


def summary(runs: Sequence[Run], *, offer: str | None = None) -> None:
    """Tabulate runs, one a row."""
    import pandas as pd

    times = ["p50 (ms)", "p99 (ms)", "max (ms)"]
    columns = ["run", "completed", "failed", *times, "stalls", "longest stall (ms)"]
    rows = []
    for run in runs:
        name = f"{run.name} ({run.invalid})" if run.invalid else run.name
        latency, failed = run.latency(offer), run.failed(offer or run.victim)
        longest = max((stall.duration_ms for stall in run.stalls), default=0.0)
        took = latency.p50, latency.p99, latency.max
        rows.append((name, latency.count, failed, *took, len(run.stalls), longest))
    show_table(pd.DataFrame(rows, columns=columns))


def show_table(table: pd.DataFrame) -> None:
    """Show a table as HTML and as text; its index is left out."""
    html = as_html(list(table), list(table.itertuples(index=False)))
    show(table.to_string(index=False, float_format=number), html=html)
