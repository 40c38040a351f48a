"""Watch an asyncio loop: how late it is, when it stalls, for how long, why, and at which line.

A loop is healthy while it keeps coming back to its selector. The probe times exactly that
(timing.py). While an iteration is overdue, a thread looks at what the loop's thread is executing
(looks.py), and a verdict is made of it (verdict.py).
"""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Self
from weakref import WeakSet

from labkit.errors import LabError
from labkit.probe.histogram import Histogram
from labkit.probe.log import Teller, warn_of_observers
from labkit.probe.looks import Sampler
from labkit.probe.stall import Stall
from labkit.probe.summary import Rows, Summary, count, sum_up
from labkit.probe.timing import WINDOWS, Timer
from labkit.probe.verdict import Iteration, judge

_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

_STALLS = 5_000  # kept; older ones are in the summary only


class Probe(Timer):
    """Watch the running loop for stalls: `with Probe() as probe:` inside any coroutine.

    Leaving it undoes everything it did. The first probe of a process tests itself on a loop and
    a stall of its own (about 50 ms), so that it cannot be blind unnoticed. Stalls are logged, at
    level INFO, by the logger `labkit.probe`: each new line at once, a known one at most once a
    minute; one that does not end is warned of while it lasts.

    A loop that has no selector (uvloop) is watched by a heartbeat, and durations are then right
    within a tenth of the threshold, or half a millisecond. On macOS and Windows, where a thread's
    CPU time cannot be read by another, more verdicts are "unknown".

    Args:
        threshold_ms: What counts as a stall, in milliseconds. `summary()` suggests one.
        on_stall: Called with each Stall when it is over, on a thread of the probe's. If it
            raises, that is logged, and it is not called again.

    Raises:
        LabError: There is no running loop, it is being watched already, or the self-test failed.
    """

    def __init__(
        self, threshold_ms: float = 50.0, *, on_stall: Callable[[Stall], object] | None = None
    ) -> None:
        if not threshold_ms >= 1:
            raise LabError(f"threshold_ms is {threshold_ms!r}; expected at least 1 millisecond.")
        super().__init__(threshold_ms)
        self._stalls: deque[Stall] = deque(maxlen=_STALLS)
        self._noise = Histogram()
        self._left = 0.0
        self._rows: Rows = {}
        self._judging = threading.Lock()
        self._teller = Teller(on_stall)

    @property
    def stalls(self) -> list[Stall]:
        """Every stall so far, oldest first (the last 5,000)."""
        if self._overdue and self._sampler is not None:
            self._sampler.ring()
        self._judge()
        return list(self._stalls)

    @property
    def lag(self) -> list[tuple[float, float]]:
        """(seconds since entry, the longest iteration in ms), for each 20 ms that had one.

        The last 30,000 of them, ten minutes at least; `summary()` has the percentiles of all.
        """
        kept = self._lag[-2 * WINDOWS :]
        return list(zip(kept[::2], kept[1::2], strict=True))

    @property
    def lag_now_ms(self) -> float:
        """For how long the loop has been busy at this moment; readable from any thread."""
        return max(0.0, 1e3 * (perf_counter() - self._since))

    @property
    def noise_ms(self) -> float:
        """How late the machine wakes a thread that only sleeps (p99, ms), while the loop is idle.

        That lateness is none of the service's: no time is known more exactly than this. NaN while
        nothing is known, as on a loop that was never idle.
        """
        return 1e3 * self._noise.percentile(99)

    @property
    def noise_max_ms(self) -> float:
        """How late the machine was at the worst, in milliseconds."""
        return 1e3 * self._noise.max

    def summary(self) -> Summary:
        """The stalls by line and cause, and the loop's lag: as text, HTML or plain dicts."""
        _ = self.stalls  # judges what is to be judged
        now = perf_counter() if self._sampler is not None else self._left
        seconds = max(now - self._entered, 1e-9)
        busy = 1 - min(1.0, self._waited / seconds)
        return sum_up(self.threshold_ms, seconds, busy, self._lags, self._noise, self._rows)

    def __enter__(self) -> Self:
        """Begin to watch the running loop."""
        from labkit.probe.selftest import self_test  # it uses a probe

        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise LabError(
                "Probe() was entered where no event loop runs. Enter it inside a coroutine:\n"
                "    async def main():\n        with labkit.Probe() as probe: ..."
            ) from None
        if self._loop in _watched:
            raise LabError("This loop is being watched by a probe already: use that one.")
        self_test()
        # No public door leads to the selector of a loop that somebody else made.
        self._selector = getattr(self._loop, "_selector", None)
        self._thread = threading.get_ident()
        self._begin()
        gc.callbacks.append(self._on_gc)
        self._sampler = Sampler(self)
        try:
            self._sampler.start()
        except BaseException:  # no more threads, for example: then nothing stays behind
            self._undo()
            gc.callbacks.remove(self._on_gc)
            raise
        _watched.add(self._loop)
        warn_of_observers(self._teller, self._loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo everything; a stall that is still going on counts as far as it came."""
        self._undo()
        now = self._window_end = self._left = perf_counter()  # the last window is shorter
        self._end(now)
        self._tick(now)
        self._since = math.inf
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.ring(over=True)
            sampler.join(1.0)  # it calls nothing of the user's
        gc.callbacks.remove(self._on_gc)
        _watched.discard(self._loop)
        self._judge()
        self._teller.close()

    # The verdicts, on whichever thread asks first; nothing of the user's is called.

    def _verdict(self, seen: Iteration) -> Stall | float:
        return judge(seen, self._threshold, self._entered, list(self._collections))

    def _judge(self, until: float = math.inf) -> None:
        found = []
        with self._judging:
            while self._overdue and self._overdue[0].since + self._overdue[0].busy <= until:
                verdict = self._verdict(self._overdue.popleft())
                if isinstance(verdict, Stall):
                    found.append(verdict)
                    self._stalls.append(verdict)
                    count(self._rows, verdict)
                elif verdict > 0:
                    self._noise.add(verdict)
        for stall in found:
            self._teller.tell(stall)
