"""Instruments of notebook 06, which are not its lesson: a witness, a stopwatch, two charts."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import asyncpg
import pandas as pd

import labkit as lab
from labkit.show.figures import BLUE, INK, ORANGE, VERMILION, panels, save

Witnessed = list[tuple[float, str, int]]  # seconds since the load began, state, connections


def named(dsn: lab.Dsn, name: str) -> lab.Dsn:
    """The URL with an `application_name`, by which the server tells our connections from others."""
    return lab.Dsn(dsn[:] + ("&" if "?" in dsn else "?") + "application_name=" + quote(name))


@contextmanager
def witness(dsn: str, query: str, name: str, load: lab.Load) -> Iterator[Witnessed]:
    """Ask PostgreSQL ten times a second, from a thread: it sees the loop freeze, and does not.

    Args:
        dsn: Which server.
        query: What to ask; it returns a state and a number in each row, and `$1` is the name.
        name: The `application_name` to ask about.
        load: Whose clock to use.

    Yields:
        What was seen, as a list that grows.
    """
    seen: Witnessed = []
    stop = threading.Event()

    async def ask() -> None:
        connection = await asyncpg.connect(dsn, command_timeout=5)
        try:
            while not stop.wait(0.1):
                found, at = await connection.fetch(query, name), load.elapsed
                seen.extend((at, state, number) for state, number in found)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1, "witness") as thread:
        asked = thread.submit(asyncio.run, ask())
        try:
            yield seen
        finally:
            stop.set()
    asked.result()


def watch_connects(load: lab.Load) -> AbstractContextManager[object]:
    """Time each connection that the running loop opens while the load runs."""
    loop = asyncio.get_running_loop()

    def timed(dial: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def timed_dial(*args: Any, **kwargs: Any) -> Any:
            with load.span("connect"):
                return await dial(*args, **kwargs)

        return timed_dial

    ways = "create_connection", "create_unix_connection"
    timed_ways: Any = {way: timed(getattr(loop, way)) for way in ways}
    watching: AbstractContextManager[object] = patch.multiple(loop, **timed_ways)
    return watching


def by_state(seen: Witnessed) -> pd.DataFrame:
    """A row a moment (index: seconds), a column a state, how many connections were in it."""
    frame = pd.DataFrame(seen, columns=["at_s", "state", "connections"])
    table = frame.pivot_table(index="at_s", columns="state", values="connections", fill_value=0)
    return table.reindex(columns=table.columns.union(["active", "idle"]), fill_value=0)


def chart_pools(runs: Sequence[tuple[lab.Run, pd.DataFrame]], *, gauge: str, title: str) -> None:
    """Chart the pool's view and the server's, of two runs on the same axes.

    Args:
        runs: For each, the run and what the witness saw.
        gauge: Which of the run's gauges tells how many connections are idle.
        title: The chart's message, as a sentence.
    """
    figure, rows = panels(height=5.2, rows=len(runs))
    said = []
    most = max(run.gauges[gauge].max() for run, _ in runs)
    for axes, (run, seen), colour in zip(rows, runs, (VERMILION, BLUE), strict=True):
        idle, active = run.gauges[gauge], seen["active"]
        axes.fill_between(idle.index, idle, step="post", color=BLUE, alpha=0.35, lw=0, label=gauge)
        axes.plot(active.index, active, color=INK, ls="--", lw=1.2, label="active in PostgreSQL")
        for stall in run.stalls:
            end = stall.start_s + stall.duration_ms / 1e3
            axes.axvspan(stall.start_s, end, color=ORANGE, alpha=0.5, lw=0)
        axes.set_title(run.name, loc="left", fontsize=10, color=colour)
        axes.set_ylabel("connections")
        axes.set_xlim(0, run.seconds)
        axes.set_ylim(0, 1.05 * most)
        axes.locator_params("y", integer=True)
        none = run.share_of_time(gauge, lambda free: free == 0)
        said.append(
            f"{run.name}: nothing idle for {none:.0%} of the time, up to "
            f"{active.max():.0f} active in PostgreSQL, {len(run.stalls)} stalls."
        )
    rows[-1].set_xlabel("time (s); orange: the loop was held")
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    save(figure, title, f"{title}. {' '.join(said)}")


def chart_steps(
    steps: Sequence[str], measures: Mapping[str, tuple[int, Sequence[float]]], *, title: str
) -> None:
    """Chart what each repair bought: a row of bars for each measure, a bar for each step.

    Args:
        steps: What each step is called.
        measures: For each measure's name and unit, the step that repairs it, and its figures.
        title: The chart's message, as a sentence.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.05)  # inches
    size = (9.0, 1.0 + 0.95 * len(measures))
    figure = Figure(figsize=size, facecolor="white", layout=margins)
    rows = list(figure.subplots(len(measures), sharex=True, squeeze=False).flat)
    said = []
    for axes, (measure, (repaired, figures)) in zip(rows, measures.items(), strict=True):
        colours = [VERMILION if step < repaired else BLUE for step in range(len(figures))]
        hatches = ["//" if step < repaired else "" for step in range(len(figures))]
        bars = axes.bar(steps, figures, color=colours, hatch=hatches, edgecolor="white", width=0.7)
        texts = [short(value) for value in figures]
        labels = axes.bar_label(bars, texts, padding=2, fontsize=9)
        for label, colour in zip(labels, colours, strict=True):
            label.set_color(INK if colour == VERMILION else BLUE)
        axes.set_title(measure, loc="left", fontsize=9.5, color=INK)
        axes.set_ylim(0, 1.35 * max(*figures, 1e-9))
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        said.append(f"{measure}: {', '.join(texts)}")
    rows[-1].set_xlabel("repaired so far: each step adds one")
    save(figure, title, f"{title}. At {', '.join(steps)}. {'; '.join(said)}.")


def short(value: float) -> str:
    """A figure as it fits above a bar."""
    return "0" if value == 0 else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
