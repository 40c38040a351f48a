"""What the probe and the pool's meter have seen, as Prometheus' metrics.

Those of the pool have OpenTelemetry's names (`db.client.connection.wait_time`), written as
Prometheus writes them (`db_client_connection_wait_time_seconds`). Everything but the counts of
connections only grows, so that `rate(…[1m])` says how it was in the last minute.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from labkit.probe import Probe
from labkit.probe.pool import WAITS, PoolMeter

LAGS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # s


class Inside(Collector):
    """Read anew for each scrape; `Collector` is what prometheus-client calls such a source."""

    def __init__(self, probe: Probe, meter: PoolMeter) -> None:
        self.probe, self.meter = probe, meter
        self._lags, self._lag_s, self._read_to = [0] * (len(LAGS) + 1), 0.0, -1.0
        self._busy_s = 0.0

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        yield from self._of_the_loop()
        yield from self._of_the_pool()

    def _of_the_loop(self) -> Iterator[Metric]:
        for at, lag_ms in self.probe.lag:  # one for each 20 ms in which the loop was busy
            if at > self._read_to:
                self._lags[bisect_left(LAGS, lag_ms / 1e3)] += 1
                self._lag_s += lag_ms / 1e3
                self._read_to = at
        name = "asyncio_loop_lag_seconds"
        lag = HistogramMetricFamily(name, "The longest iteration of the loop, each 20 ms")
        lag.add_metric([], _buckets(LAGS, self._lags), self._lag_s)
        yield lag

        summary = self.probe.summary()
        seconds, busy_s = self.probe.watched_and_busy_s
        self._busy_s = max(self._busy_s, busy_s)  # a counter that falls counts as begun anew
        watched = CounterMetricFamily("asyncio_loop_watched_seconds", "Time under the probe")
        watched.add_metric([], seconds)
        yield watched
        busy = CounterMetricFamily("asyncio_loop_busy_seconds", "Time the loop was not waiting")
        if summary["busy"] is not None:  # as on a loop without a selector
            busy.add_metric([], self._busy_s)
        yield busy

        labels = ["line", "cause"]
        stalls = CounterMetricFamily("asyncio_loop_stalls", "Stalls", labels=labels)
        for row in summary["stalls"]:
            where = f"{row['file']}:{row['line']}" if row["file"] else "unknown"
            stalls.add_metric([where, row["cause"]], row["count"])
        yield stalls
        # Not by line: a series that begins when its line stalls first has no increase to show.
        stalled = CounterMetricFamily("asyncio_loop_stalled_seconds", "Time in them")
        stalled.add_metric([], sum(row["total_ms"] for row in summary["stalls"]) / 1e3)
        yield stalled

    def _of_the_pool(self) -> Iterator[Metric]:
        meter, now, pool = self.meter, self.meter.as_dict(), "db_client_connection"
        count = GaugeMetricFamily(f"{pool}_count", "Connections, by state", labels=["state"])
        count.add_metric(["used"], now["in_use"])
        count.add_metric(["idle"], now["idle"])
        yield count
        waiting = GaugeMetricFamily(f"{pool}_pending_requests", "Tasks that wait for one")
        waiting.add_metric([], meter.waiting)
        yield waiting
        waits = HistogramMetricFamily(f"{pool}_wait_time_seconds", "The wait in acquire()")
        waits.add_metric([], _buckets(WAITS, meter.buckets), meter.waited_s)
        yield waits


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """As Prometheus counts: each bucket has what is up to its bound, all smaller ones included."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))
