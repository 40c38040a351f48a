"""Watch an asyncio loop: how late it is, when it stalls, for how long, why, and at which line."""

import _thread
import asyncio
import gc
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Self
from weakref import WeakSet

from labkit.errors import LabError
from labkit.probe.histogram import Histogram
from labkit.probe.log import Teller, warn_of_observers
from labkit.probe.looks import Sampler
from labkit.probe.meters import perf_counter
from labkit.probe.stall import Stall
from labkit.probe.summary import Rows, Summary, count, sum_up
from labkit.probe.timing import Timer

_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

_STALLS = 5_000  # kept; older ones are in the summary only


class Probe:
    """Watch the running loop for stalls: `with Probe() as probe:` inside any coroutine.

    Leaving it undoes everything it did. Stalls are logged, at level INFO, by the logger
    `labkit.probe`: each new line at once, a known one at most once a minute; one that does not end
    is warned of while it lasts.

    A loop that uses no selector (uvloop) is watched by a heartbeat, five in a threshold: durations
    are then right within a tenth of the threshold, or half a millisecond, and an idle service is
    woken about 130 times a second at 50 ms. Its lag is how late the heartbeat comes, and how busy
    the loop is, is known only from below (see `Summary`). On macOS and Windows, where a thread's
    CPU time cannot be read by another, more verdicts are "unknown". A signal's handler that runs
    while the loop waits, with no timer due, holds up nothing that the probe could know of.

    Args:
        threshold_ms: What counts as a stall, in milliseconds. After half a minute, `summary()`
            suggests one.
        on_stall: Called with each Stall when it is over, on a thread of the probe's. If it
            raises, that is logged, and it is not called again.

    Raises:
        LabError: There is no running loop, or it is being watched already; or this Python runs
            without its global interpreter lock, or its threads are greenlets.
    """

    def __init__(
        self, threshold_ms: float = 50.0, *, on_stall: Callable[[Stall], object] | None = None
    ) -> None:
        if not 1 <= threshold_ms < 1e9:
            raise LabError(f"threshold_ms is {threshold_ms!r}; expected 1 or more, and below 1e9.")
        self.threshold_ms = float(threshold_ms)
        self._timer = Timer(threshold_ms / 1e3)
        self._sampler: Sampler | None = None
        self._stalls: deque[Stall] = deque(maxlen=_STALLS)
        self._noise = Histogram()
        self._rows: Rows = {}
        self._teller = Teller(on_stall)
        self._free = threading.Lock()  # held from entry to exit; several threads may enter at once

    @property
    def stalls(self) -> list[Stall]:
        """Every stall so far, oldest first (the last 5,000)."""
        if self._timer.over and self._sampler is not None:
            self._sampler.catch_up()
        return list(self._stalls)

    @property
    def lag(self) -> list[tuple[float, float]]:
        """(seconds since entry, the longest iteration in ms), for each 20 ms that had one.

        The last 15,000 of them, five minutes at least; `summary()` has the percentiles of all.
        """
        return list(self._timer.lag)

    @property
    def lag_now_ms(self) -> float:
        """For how long the loop has been busy at this moment; readable from any thread."""
        runs = self._sampler is not None and self._timer.loop.is_running()
        return max(0.0, 1e3 * (perf_counter() - self._timer.since)) if runs else 0.0

    @property
    def noise_ms(self) -> float:
        """How late the machine wakes a thread that only sleeps (p99, ms), while the loop is idle.

        That lateness is none of the service's: no time is known more exactly than this. NaN while
        nothing is known, as on a loop that was never idle.
        """
        return 1e3 * self._noise.percentile(99)

    @property
    def watched_and_busy_s(self) -> tuple[float, float]:
        """For how long it has watched the loop, and the loop was busy: (s, s).

        As a counter, to be read again and again; by a heartbeat, the second is known from below.
        """
        timer, now = self._timer, perf_counter()
        seconds = now - timer.entered if self._sampler is not None else timer.watched
        waited = timer.waited + max(0.0, min(now, timer.since) - timer.waits_from)
        return seconds, max(0.0, seconds - waited)

    def summary(self) -> Summary:
        """The stalls by line and cause, and the loop's lag: as text, HTML or plain dicts."""
        _ = self.stalls  # so that all are judged
        seconds, busy_s = self.watched_and_busy_s
        busy = busy_s / seconds if seconds else math.nan
        found = self._timer.lags, self._noise, self._rows
        return sum_up(self.threshold_ms, seconds, busy, self._timer.beats, *found)

    def __enter__(self) -> Self:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise LabError(
                "Probe() was entered where no asyncio loop runs. Enter it inside a coroutine:\n"
                "    async def main():\n        with labkit.Probe() as probe: ..."
            ) from None
        refuse_where_no_look_is_possible()
        if loop in _watched or not self._free.acquire(blocking=False):
            already = "loop is watched by a probe" if loop in _watched else "probe watches a loop"
            raise LabError(
                f"This {already} already, and a loop can have one probe, a probe one loop.\n"
                "Use that one, or leave it first. A test with no_stalls leaves the service's out."
            )
        try:
            sampler = Sampler(self)
            sampler.start()  # before the timer: on a busy machine, this holds the loop itself
        except RuntimeError as error:
            self._free.release()
            raise LabError(
                f"The probe's thread cannot be started: {error}. Expected the main interpreter, "
                "and room for one more thread."
            ) from None
        try:
            self._timer.start(loop)
        except BaseException:  # then nothing stays behind
            sampler.leave()
            self._free.release()
            raise
        self._sampler = sampler
        gc.callbacks.append(self._timer.on_gc)
        _watched.add(loop)
        warn_of_observers(self._teller, loop)
        return self

    def __exit__(self, *_: object) -> None:
        """Undo everything; a stall that is still going on counts as far as it came."""
        if self._sampler is None:
            return
        self._timer.stop()
        if self._timer.on_gc in gc.callbacks:  # the service may have cleared them
            gc.callbacks.remove(self._timer.on_gc)
        _watched.discard(self._timer.loop)
        self._sampler.leave()
        self._sampler = None
        self._teller = self._teller.close()
        self._free.release()

    def _found(self, verdict: Stall | float) -> None:
        """Keep a verdict; on the sampler's thread, so nothing of the user's is called."""
        if isinstance(verdict, Stall):
            self._stalls.append(verdict)
            count(self._rows, verdict)
            self._teller.tell(verdict)
            verdict = (verdict.duration_ms - verdict.own_ms) / 1e3
        if verdict > 0:  # for so long, the machine kept it from running
            self._noise.add(verdict)


def refuse_where_no_look_is_possible() -> None:
    """Raise LabError on a free-threaded Python, and where threads are none of the system's."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():  # 3.13 and later have it
        raise LabError(
            "This Python runs without its global interpreter lock. There, a look at a thread that "
            "runs makes all threads wait, and may crash the process. Expected: a Python with that "
            "lock, or PYTHON_GIL=1 in its environment."
        )
    starter = str(getattr(_thread.start_new_thread, "__module__", ""))
    if starter.partition(".")[0] in ("gevent", "eventlet"):
        raise LabError(
            "gevent or eventlet has made greenlets of this program's threads. While one computes, "
            "no other can look at it. Expected: a process whose threads they have not replaced."
        )
