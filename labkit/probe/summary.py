"""What a probe has seen, summed up by line and cause: a table, HTML, or plain dicts for JSON."""

from __future__ import annotations

import copy
import html
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from labkit.probe.histogram import Histogram
from labkit.probe.stall import Stall, source

_LINES = 1000  # kept; the rest is summed up in one
_TITLES: tuple[str, ...] = (
    "stalls",
    "longest (ms)",
    "in all (ms)",
    "last seen",
    "cause",
    "line",
    "source",
)


@dataclass
class Row:
    """The stalls of one line and cause."""

    file: str | None
    line: int | None
    function: str | None
    source: str
    cause: str
    thread: str | None
    task: str | None
    count: int = 0
    longest_ms: float = 0.0
    total_ms: float = 0.0
    last_seen: str = ""  # local time, ISO 8601

    def cells(self) -> tuple[str, ...]:
        """For a table."""
        where = f"{self.file}:{self.line} in {self.function}" if self.file else "no line was found"
        times = (f"{self.count:,}", f"{self.longest_ms:,.0f}", f"{self.total_ms:,.0f}")
        by = f" ({self.thread})" if self.thread else ""
        return (*times, self.last_seen, self.cause + by, where, self.source)


class Summary:
    """Prints as a table; `as_dict()` is for JSON."""

    def __init__(self, threshold_ms: float) -> None:
        self.threshold_ms = threshold_ms
        self.figures: dict[str, float | None] = {}
        self._rows: dict[object, Row] = {}
        self._machine_ms, self._machine_count = 0.0, 0

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Summary:
        """What `as_dict()` made of one, in another process."""
        made = cls(found["threshold_ms"])
        made.figures = {k: v for k, v in found.items() if k not in ("threshold_ms", "stalls")}
        made._rows = {index: Row(**row) for index, row in enumerate(found["stalls"])}
        return made

    @property
    def rows(self) -> list[Row]:
        """The costliest first."""
        return sorted(self._rows.values(), key=lambda row: -row.total_ms)

    def add(self, stall: Stall) -> None:
        """Count a stall."""
        frame = stall.awaited_at or stall.frame
        key: object = (frame, stall.cause)
        if key not in self._rows and len(self._rows) >= _LINES:
            key, frame = "the rest", None
        if key not in self._rows:
            file, line, function = frame or (None, None, None)
            by = (stall.cause, stall.thread, stall.task)
            self._rows[key] = Row(file, line, function, source(frame), *by)
        row = self._rows[key]
        row.count += 1
        row.longest_ms = max(row.longest_ms, stall.duration_ms)
        row.total_ms += stall.duration_ms
        row.last_seen = datetime.now().astimezone().isoformat(timespec="seconds")

    def kept_from_running(self, seconds: float) -> None:
        """Count a time in which the machine did not let this process run."""
        self._machine_count += 1
        self._machine_ms += 1e3 * seconds

    def with_figures(
        self, seconds: float, busy: float, lag: Histogram, noise: Histogram
    ) -> Summary:
        """A copy as of now, with the loop's figures."""
        made = copy.copy(self)
        made._rows = {key: copy.copy(row) for key, row in list(self._rows.items())}
        figures = {
            "seconds": seconds,
            "busy": busy,
            "lag_p50_ms": 1e3 * lag.percentile(50),
            "lag_p99_ms": 1e3 * lag.percentile(99),
            "lag_max_ms": 1e3 * lag.max,
            "noise_p99_ms": 1e3 * noise.percentile(99),
            "suggested_threshold_ms": suggested_ms(lag, noise),
            "kept_from_running": self._machine_count,
            "kept_from_running_ms": self._machine_ms,
        }
        made.figures = {k: None if math.isnan(v) else round(v, 3) for k, v in figures.items()}
        return made

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; times in ms and s, as their names say."""
        stalls = [asdict(row) for row in self.rows]
        return {"threshold_ms": self.threshold_ms, **self.figures, "stalls": stalls}

    def __str__(self) -> str:
        """A table for a terminal."""
        table = [_TITLES, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join([*(lines if len(lines) > 1 else ["no stall"]), self._said()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        cells = [("<th>", _TITLES), *(("<td>", row.cells()) for row in self.rows)]
        rows = ("".join(tag + html.escape(cell) for cell in row) for tag, row in cells)
        table = "".join(f"<tr>{row}" for row in rows)
        return f"<table>{table}</table><p>{html.escape(self._said())}</p>"

    def _said(self) -> str:
        f = self.figures
        if f.get("lag_p99_ms") is None:
            return f"threshold {self.threshold_ms:g} ms"
        machine = ""
        if f["kept_from_running"]:
            machine = (
                f" The machine kept this process from running {f['kept_from_running']:.0f} times, "
                f"for {f['kept_from_running_ms']:,.0f} ms in all: nobody's line."
            )
        return (
            f"In {f['seconds']:,.0f} s the loop was busy for {f['busy']:.1%}; lag p50 "
            f"{f['lag_p50_ms']:.2f}, p99 {f['lag_p99_ms']:.1f}, max {f['lag_max_ms']:,.0f} ms. "
            f"Threshold {self.threshold_ms:g} ms; by these figures {f['suggested_threshold_ms']:g} "
            f"ms would do: five times the lag's p90 and five times the machine's noise, at least "
            f"10.{machine}"
        )


def suggested_ms(lag: Histogram, noise: Histogram) -> float:
    """A threshold from a service's own figures, rounded up to 10, 20, 50, 100 … ms.

    Five times the p90 of its lag, so that what is usual here is no stall (the p99 may be stalls
    already); five times the p99 of the machine's noise, so that its lateness is none; 10 at least.
    """
    usual, late = 1e3 * lag.percentile(90), 1e3 * noise.percentile(99)
    least = max(10.0, *(5 * x for x in (usual, late) if not math.isnan(x)), 10.0)
    scale = 10.0 ** math.floor(math.log10(least))
    return next(step * scale for step in (1, 2, 5, 10) if step * scale >= least - 1e-9)
