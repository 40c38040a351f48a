"""Watch an asyncio loop: how late it is, when it stalls, for how long, why, and at which line.

A loop is healthy while it keeps coming back to its selector. The probe times exactly that: from
each return of `select()` to the next call of it, the loop was busy with callbacks, one or many,
and everybody else waited. That is the stall's length, to the microsecond. (A `select()` that is
told not to wait is part of being busy.) While an iteration is overdue, a thread looks at what the
loop's thread is executing (looks.py), and a verdict is made of it (verdict.py).
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable
from time import perf_counter, process_time, thread_time
from types import CodeType, TracebackType
from typing import Any, Self
from weakref import WeakSet

from labkit.errors import LabError
from labkit.probe.frames import Frame, is_users, users_frame, walk
from labkit.probe.histogram import Histogram
from labkit.probe.log import Teller, warn_of_observers
from labkit.probe.looks import Sampler
from labkit.probe.origin import awaiting_line, greenlet_caller, sent_from
from labkit.probe.stall import Stall
from labkit.probe.summary import Summary
from labkit.probe.verdict import Collection, Iteration, Tally, judge

_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

_LAG_WINDOW = 0.020  # s; one figure of lag for each
_WINDOWS = 30_000  # kept of them; older ones are in the histogram only
_STALLS = 5_000  # kept; older ones are in the summary only
_TICK = 0.001  # s; see Probe._tick
_WOKEN_LATE = 0.0025  # s; epoll rounds up to a millisecond, so less than this is no sign


class Probe:
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
        self.threshold_ms = threshold_ms
        self._threshold = threshold_ms / 1e3
        self._selector: Any = None  # the loop's, if it has one
        self._sampler: Sampler | None = None
        self._since = math.inf  # when the present iteration became overdue, or will
        self._cpu = 0.0  # CPU time of the loop's thread, up to a millisecond before
        self._engine: CodeType | None = None  # the code that runs the loop: never a culprit
        self._outer: Frame | None = None  # who entered the greenlet that is on the stack
        self._file = __file__
        self._collections: deque[Collection] = deque(maxlen=64)
        self._overdue: deque[Iteration] = deque(maxlen=1000)
        self._stalls: deque[Stall] = deque(maxlen=_STALLS)
        self._lag = array("d")  # moment (s) and lag (ms), by turns: small, and quick to append to
        self._lags, self._noise = Histogram(), Histogram()
        self._entered = self._waited = self._watched_s = 0.0
        self._summary = Summary(threshold_ms)
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
        kept = self._lag[-2 * _WINDOWS :]
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
        return self._summary.with_figures(
            seconds, 1 - min(1.0, self._waited / seconds), self._lags, self._noise
        )

    _left = 0.0  # when the probe was left

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

    # On the loop's thread: a clock reading or two an iteration, and the evidence of a stall.

    def _begin(self) -> None:
        self._entered = self._since = self._gc_began = perf_counter()
        self._cpu, self._process, self._waited = thread_time(), process_time(), 0.0
        self._woken_late = 0.0  # when the last select() that returned late should have returned
        self._window_end, self._window_lag = self._entered + _LAG_WINDOW, 0.0
        # A heartbeat's stall began up to so long (s) before the beat that it made late was due.
        self._unsure = 0.0
        timed = self._selector is not None
        self._undo: Callable[[], None] = self._time_selector() if timed else self._beat()

    def _time_selector(self) -> Callable[[], None]:
        selector = self._selector
        wait, clock, tick, end = selector.select, perf_counter, self._tick, self._end
        notable = next_tick = 0.0

        # It runs ten thousand times a second: hence locals, and no call that is not needed.
        def select(timeout: float | None = None) -> Any:
            nonlocal notable, next_tick
            now = clock()
            if now - self._since > notable:
                end(now)
                next_tick = now
            if now >= next_tick:
                self._engine = sys._getframe(1).f_code
                notable, next_tick = tick(now), now + _TICK
            if timeout == 0:  # callbacks are waiting: this select() is part of the next iteration
                self._since = now
                return wait(0)
            # A wait that ends later than it should was kept from ending: by another thread, or by
            # the machine. The loop is then overdue from the moment when it should have ended.
            self._since = due = math.inf if timeout is None else now + timeout
            events = wait(timeout)
            then = clock()
            self._waited += then - now
            if then - due > _WOKEN_LATE:
                self._woken_late = due
            else:
                self._since = then
                if then >= next_tick:
                    notable, next_tick = tick(then), then + _TICK
            return events

        def undo() -> None:
            if selector.select is not select:  # somebody wrapped or removed it since: theirs now
                return
            del selector.select
            if selector.select != wait:  # it was not the class's, but put there by somebody
                selector.select = wait

        # On the instance, it hides the class's and can be taken off. (To look into its __dict__
        # would make each of its attributes slower to read.)
        selector.select = select
        return undo

    def _beat(self) -> Callable[[], None]:
        period = max(self._threshold / 5, 0.001)  # uvloop takes less than half of that for none
        # A stall began between the last beat and this one's due time: half a period, in mean.
        self._unsure = period / 2
        self._since += self._unsure  # except the first, whose beginning is known
        handle: asyncio.TimerHandle

        def beat() -> None:
            nonlocal handle
            now = perf_counter()
            runner = sys._getframe(1)
            self._engine = runner.f_code if runner else None
            self._waited += max(0.0, period - (thread_time() - self._cpu))
            self._end(now)
            handle = self._loop.call_later(period, beat)
            self._tick(now)
            self._since = now + period

        handle = self._loop.call_later(0, beat)
        return lambda: handle.cancel()

    def _tick(self, now: float) -> float:
        """Read the CPU clocks, close the window of lag, say which iteration is worth an `_end`.

        These cost 0.6 us each. Read once a millisecond, not in every iteration, they still tell
        the CPU time of a stall to within that millisecond.
        """
        self._cpu, self._process = thread_time(), process_time()
        if now >= self._window_end:
            self._lag.extend((now - self._entered, 1e3 * self._window_lag))
            if len(self._lag) > 4 * _WINDOWS:
                del self._lag[: 2 * _WINDOWS]
            self._lags.add(self._window_lag)
            self._window_end, self._window_lag = now + _LAG_WINDOW, 0.0
        return min(self._window_lag, self._threshold)

    def _end(self, now: float) -> None:
        busy = now - self._since
        if busy > self._unsure:
            busy += self._unsure
        if busy >= self._threshold:
            tally = self._sampler.tally if self._sampler else None
            if tally is None or tally.since != self._since:
                tally = Tally(self._since, self._since)
            if tally.paused:  # between two runs of the loop, or at a breakpoint
                busy = tally.until - self._since
            if busy >= self._threshold:
                cpu, process = thread_time() - self._cpu, process_time() - self._process
                late = self._since == self._woken_late
                self._overdue.append(Iteration(self._since, busy, cpu, process, late, tally))
        self._window_lag = max(busy, self._window_lag)

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        now = perf_counter()
        if phase == "start":
            self._gc_began = now
            # Inside a greenlet, and only here, can be asked who entered it.
            new = now - self._since > self._threshold / 4 and self._outer_since != self._since
            if new and threading.get_ident() == self._thread:
                self._outer_since, self._outer = self._since, greenlet_caller()
        elif now - self._gc_began > self._threshold / 4:
            own = threading.get_ident() == self._thread
            thread = None if own else threading.current_thread().name
            took, stack = now - self._gc_began, walk(sys._getframe(1), self._engine)
            line = None
            if not is_users(users_frame(stack)):
                task = asyncio.current_task(self._loop) if own else None
                line = awaiting_line(task) if task else sent_from(sys._getframe(1))
                line = self._outer if own and self._outer else line
            self._collections.append(Collection(self._gc_began, took, thread, stack, line))

    _outer_since = math.nan  # the iteration to which `_outer` belongs

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
                    self._summary.add(verdict)
                elif verdict > 0:
                    self._noise.add(verdict)
                    self._summary.kept_from_running(verdict)
        for stall in found:
            self._teller.tell(stall)
