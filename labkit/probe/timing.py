"""The loop's side: a clock reading or two in each iteration, and the evidence of a stall.

From each return of `select()` to the next call of it, the loop was busy with callbacks, one or
many, and everybody else waited. That is the stall's length, to the microsecond. (A `select()` that
is told not to wait is part of being busy.) A loop without a selector (uvloop) is sent a heartbeat.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable
from time import perf_counter, process_time, thread_time
from types import CodeType
from typing import Any

from labkit.probe.frames import Frame, is_users, users_frame, walk
from labkit.probe.histogram import Histogram
from labkit.probe.looks import Sampler
from labkit.probe.origin import awaiting_line, greenlet_caller, sent_from
from labkit.probe.verdict import Collection, Iteration, Tally

_LAG_WINDOW = 0.020  # s; one figure of lag for each
WINDOWS = 30_000  # kept of them; older ones are in the histogram only
_TICK = 0.001  # s; see Timer._tick
_WOKEN_LATE = 0.0025  # s; epoll rounds up to a millisecond, so less than this is no sign


class Timer:
    """Times a loop's iterations, on its thread. A probe is one, with what it finds."""

    def __init__(self, threshold_ms: float) -> None:
        self.threshold_ms = threshold_ms
        self._threshold = threshold_ms / 1e3
        self._selector: Any = None  # the loop's, if it has one
        self._loop: asyncio.AbstractEventLoop
        self._thread = 0  # the loop's
        self._sampler: Sampler | None = None
        self._since = math.inf  # when the present iteration became overdue, or will
        self._cpu = self._process = 0.0  # CPU time of thread and process, a millisecond ago at most
        # The longest wait (s) while a thread keeps the interpreter again and again, else 0: only a
        # wait that should have ended shows how late the loop comes back from it.
        self._bound = 0.0
        self._engine: CodeType | None = None  # the code that runs the loop: never a culprit
        self._outer: Frame | None = None  # who entered the greenlet that is on the stack
        self._outer_since = math.nan  # the iteration to which that belongs
        self._file = __file__
        self._collections: deque[Collection] = deque(maxlen=64)
        self._overdue: deque[Iteration] = deque(maxlen=1000)
        self._lag = array("d")  # moment (s) and lag (ms), by turns: small, and quick to append to
        self._lags = Histogram()
        self._entered = self._waited = 0.0
        self._undo: Callable[[], None] = lambda: None

    def _begin(self) -> None:
        self._entered = self._since = self._gc_began = perf_counter()
        self._cpu, self._process, self._waited = thread_time(), process_time(), 0.0
        self._woken_late = 0.0  # when the last select() that returned late should have returned
        self._window_end, self._window_lag = self._entered + _LAG_WINDOW, 0.0
        # A heartbeat's stall began up to so long (s) before the beat that it made late was due.
        self._unsure = 0.0
        timed = self._selector is not None
        self._undo = self._time_selector() if timed else self._beat()

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
            if self._bound and (timeout is None or timeout > self._bound):
                timeout = self._bound  # asyncio takes an early and empty return in its stride
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
            runner = sys._getframe().f_back
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
            if len(self._lag) > 4 * WINDOWS:
                del self._lag[: 2 * WINDOWS]
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
            ident, took = threading.get_ident(), now - self._gc_began
            own, caller, line = ident == self._thread, sys._getframe().f_back, None
            if self._sampler is not None and ident == self._sampler.ident:
                own, caller = True, None  # the heap is the service's, though this thread paid
            stack = walk(caller, self._engine)
            if stack and not is_users(users_frame(stack)):
                task = asyncio.current_task(self._loop) if own else None
                line = awaiting_line(task) if task else sent_from(caller)
                line = self._outer if own and self._outer else line
            thread = None if own else threading.current_thread().name
            self._collections.append(Collection(self._gc_began, took, thread, stack, line))
