"""What a probe has seen, summed up by line and cause: a table, HTML, or plain dicts for JSON."""

import html
import math
from datetime import datetime
from typing import Any

from labkit.probe.frames import Frame, source
from labkit.probe.histogram import Histogram
from labkit.probe.stall import Stall

Rows = dict[tuple[Frame | None, str], dict[str, Any]]  # by line and cause
_LINES = 1000  # kept; the rest is summed up in one
_MANY, _NO_LINE = "various", "where no line was found"
_KNOWS_ITSELF = 30  # s; watched for less, the machine has not shown how late it usually is
_TITLES = ("stalls", "longest (ms)", "in all (ms)", "last seen", "cause and line")


def count(rows: Rows, stall: Stall) -> None:
    """Count a stall in the row of its line and cause."""
    frame, cause = stall.line, str(stall.cause)
    if (frame, cause) not in rows and len(rows) >= _LINES:
        frame, cause = None, _MANY
    key = frame, cause
    if key not in rows:
        where = frame._asdict() if frame else dict.fromkeys(Frame._fields)
        what = {"source": source(frame), "cause": cause, "task": None}
        rows[key] = {**where, **what, "count": 0, "longest_ms": 0.0, "total_ms": 0.0}
    row = rows[key]
    row["count"] += 1
    row["at"] = stall.at  # how sure the line is, this time
    row["frame"] = str(stall.frame) if stall.awaited_at else None  # what was at work, this time
    row["longest_ms"] = max(row["longest_ms"], stall.own_ms)
    row["total_ms"] += stall.own_ms
    row["task"] = stall.task or row["task"]  # the last that had a name
    row["last_seen"] = datetime.now().astimezone().isoformat(timespec="seconds")


class Summary(dict[str, Any]):
    """Plain dicts, lists and numbers, as JSON has them; shown, it is a table.

    Keys: `threshold_ms`; `suggested_threshold_ms`; `seconds` watched; `busy`, the share of them in
    which the loop was busy (without a selector that is not known: `busy_at_least`, the share of its
    thread's CPU time, takes its place, and no threshold is suggested); `lag_p50_ms`, `lag_p99_ms`,
    `lag_max_ms`; the machine's `noise_p99_ms` and `noise_max_ms`; `stalls`, a dict for each line
    and cause, the costliest first. None is for what is not known.
    """

    def __str__(self) -> str:
        table = [_TITLES, *map(_cells, self["stalls"])] if self["stalls"] else []
        lines = ["{:>6}  {:>12}  {:>11}  {:19}  {}".format(*cells) for cells in table]
        return "\n".join([*(lines or ["no stall"]), self._figures()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        titles = "".join(f"<th>{title}" for title in _TITLES)
        rows = (map(html.escape, _cells(row)) for row in self["stalls"])
        table = "".join(f"<tr><td>{'<td>'.join(cells)}" for cells in rows)
        return f"<table><tr>{titles}{table}</table><p>{self._figures()}</p>"

    def _figures(self) -> str:
        return ", ".join(f"{name} {x:,.9g}" for name, x in self.items() if isinstance(x, float))


def sum_up(
    threshold_ms: float,
    seconds: float,
    busy: float,
    beats: bool,
    lag: Histogram,
    noise: Histogram,
    rows: Rows,
) -> Summary:
    """A summary of what was found in so many seconds; `busy` is a share of them.

    If a heartbeat was sent (`beats`), the loop may have been busier, and later.

    The threshold that these figures suggest is ten times the usual lag, so that what is usual here
    is no stall (a high percentile may be the stalls themselves), and five times how late the
    machine wakes a thread; 10 ms at least. Less than half a minute suggests none.
    """
    usual, late = 1e3 * lag.percentile(50), 1e3 * noise.percentile(99)
    suggested = round(max(10.0, 10 * usual, 5 * late), 0)  # NaN is never the largest
    known = seconds >= _KNOWS_ITSELF and not beats
    figures = {
        "threshold_ms": threshold_ms,
        "suggested_threshold_ms": suggested if known else math.nan,
        "seconds": seconds,
        "busy": math.nan if beats else busy,
        **({"busy_at_least": busy} if beats else {}),
        "lag_p50_ms": usual,
        "lag_p99_ms": 1e3 * lag.percentile(99),
        "lag_max_ms": 1e3 * lag.percentile(100),
        "noise_p99_ms": late,
        "noise_max_ms": 1e3 * noise.percentile(100),
    }
    rounded = {key: None if math.isnan(x) else round(x, 3) for key, x in figures.items()}
    stalls = sorted(map(dict, list(rows.values())), key=lambda row: -row["total_ms"])
    return Summary(rounded, stalls=stalls)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    text = f": {row['source']}" if row["source"] else ""
    where = f"{row['at']} {row['file']}:{row['line']} in {row['function']}{text}"
    where += f"; last, in {row['frame']}" if row["frame"] else ""
    no_line = f"at lines after the first {_LINES:,}" if row["cause"] == _MANY else _NO_LINE
    return (
        f"{row['count']:,}",
        f"{row['longest_ms']:,.0f}",
        f"{row['total_ms']:,.0f}",
        row["last_seen"][:19].replace("T", " "),
        f"{row['cause']}, {where if row['file'] else no_line}",
    )
