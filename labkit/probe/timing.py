"""The loop's side: a clock reading or two in each iteration, and the evidence of a stall.

From each return of `select()` to the next call of it, the loop was busy with callbacks, one or
many, and everybody else waited. That is the stall's length, to the microsecond. (A `select()` that
is told not to wait is part of being busy.) A loop that uses no selector is sent a heartbeat.
"""

import asyncio
import math
import selectors
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import thread_time
from types import CodeType, FrameType
from typing import Any

from labkit.probe.frames import Stack, walk
from labkit.probe.histogram import Histogram
from labkit.probe.meters import perf_counter, thread_cpu
from labkit.probe.verdict import Iteration

_LAG_WINDOW = 0.020  # s; one figure of lag for each
_WINDOWS = 15_000  # kept of them; older ones are in the histogram only
_TICK = 0.001  # s; see Timer._note
_SHORT = 0.001  # s; the longest wait while a thread keeps the interpreter
_WOKEN_LATE = 0.0025  # s; epoll rounds up to a millisecond, so less than this is no sign


class Timer:
    """Times a loop's iterations, on the loop's thread. The sampler reads what it has found."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold  # s
        self.entered = 0.0  # when it began; one that begins again goes on counting from there
        self.watched = self.waited = 0.0  # for how long (s), in all; and with nothing to do
        self.waits_from = math.inf  # when the wait that goes on began
        self.waits = 0  # how many have begun
        self.since = math.inf  # when the present iteration began, or when it should begin
        # When the last select() that returned late should have returned, and when it did.
        self.woken_late, self.woken = math.nan, math.nan
        self.cpu = 0.0  # CPU time of the loop's thread, a millisecond ago at most
        self.iteration = Iteration(-1.0)  # the last that the sampler looked at
        self.contended = False  # a thread was seen to keep the interpreter in the last second
        self.beats = False  # whether it sends the loop a heartbeat
        self.over: deque[Iteration] = deque(maxlen=1000)  # those that were too long
        self._garbage = [0.0, 0.0]  # for how long it was collected elsewhere, and on this thread
        # When a collection began, the CPU clock of its thread then, and which one that is.
        self._gc_began, self._gc_cpu, self._gc_native, self._gc_here = math.inf, 0.0, 0, False
        self.collects = 0  # the id of the frame on this thread in which it is being collected
        self.collects_elsewhere = 0, 0  # another thread, and its frame
        self.lags = Histogram()
        # (seconds since the beginning, the longest iteration in ms), for each window
        self.lag = deque[tuple[float, float]](maxlen=_WINDOWS)
        self._engine: CodeType | None = None  # the code that runs the loop: never a culprit
        self.wait_files = {__file__, selectors.__file__}  # where the loop waits
        # The greenlet in which the loop runs. Weakly: one that outlives its thread crashes Python.
        self._greenlet: Callable[[], Any] = lambda: None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to time the running loop."""
        self.loop = loop
        self._thread, self._native = threading.get_ident(), threading.get_native_id()
        self.since, self.cpu = perf_counter(), thread_time()
        self._unsure = 0.0  # a stall that makes a beat late may begin so long (s) before it is due
        self.entered = self.since - self.watched
        self._window_end, self._window_lag = self.since + _LAG_WINDOW, 0.0
        # No public door leads to the selector of a loop that somebody else made.
        selector = getattr(loop, "_selector", None)
        self.beats = selector is None
        self._undo = self._beat() if self.beats else self._time_selector(selector)
        if not self.beats:
            loop.call_soon(self._beat_if_it_is_not_used, self.since)

    def stop(self) -> None:
        """Undo everything; a stall that is still going on counts as far as it came."""
        self._undo()
        now = self._window_end = perf_counter()  # the last window is shorter
        mine = threading.get_ident() == self._thread  # else, its clock is to be read from here
        self._note(now, None if mine else thread_cpu(self._native) or self.cpu)
        self.since, self.watched = math.inf, now - self.entered

    def stack(self, frame: FrameType | None) -> Stack:
        """What the loop has called, to this frame; through a greenlet, as SQLAlchemy makes one."""
        outer = getattr(self._greenlet(), "gr_frame", None)  # None, unless another greenlet runs
        within = walk(frame, self._engine, self.collects)
        return walk(outer, self._engine) + within

    def _beat_if_it_is_not_used(self, began: float) -> None:
        """Others' loops (Qt's) may have a selector, and never call it between two callbacks."""
        if self.since == began:
            self._undo()
            self.beats, self.since = True, perf_counter()
            self._undo = self._beat()

    def _time_selector(self, selector: Any) -> Callable[[], None]:
        wait, clock, note = selector.select, perf_counter.func, self._note
        notable = next_tick = 0.0
        left = False
        self.wait_files.add(getattr(getattr(wait, "__code__", None), "co_filename", __file__))

        # It runs ten thousand times a second: hence locals, and no call that is not needed.
        def select(timeout: float | None = None) -> Any:
            nonlocal notable, next_tick
            if left:
                return wait(timeout)
            now = clock()
            if now >= next_tick or now - self.since > notable:
                self._engine = sys._getframe(1).f_code
                notable, next_tick = note(now), now + _TICK
            if timeout == 0:  # callbacks are waiting: this select() is part of the next iteration
                self.since = now
                return wait(0)
            # A wait that ends later than it should was kept from ending: by another thread, or by
            # the machine. The loop is then overdue from the moment when it should have ended. For
            # a socket nobody knows that moment. So, while a thread keeps the interpreter again and
            # again, long waits are cut into short ones: asyncio allows a select() to end early.
            if self.contended and (timeout is None or timeout > _SHORT):
                timeout = _SHORT
            self.since = due = math.inf if timeout is None else now + timeout
            self.waits_from = now
            self.waits += 1
            try:
                events = wait(timeout)
            finally:  # a signal's handler may raise in it
                then = clock()
                # In this order: who reads in between sees too little busy time, not too much.
                self.waited += min(then, due) - now
                self.waits_from = math.inf
            if then - due > _WOKEN_LATE:
                self.woken_late, self.woken = due, then
            else:
                self.since = then
                if then >= next_tick:
                    notable, next_tick = note(then), then + _TICK
            return events

        def undo() -> None:
            nonlocal left
            left = True
            if selector.select is select:  # else, somebody wrapped or removed it: theirs now
                del selector.select
                if selector.select != wait:  # it was not the class's, but put there by somebody
                    selector.select = wait

        # On the instance, it hides the class's and can be taken off. (To look into its __dict__
        # would make each of its attributes slower to read.)
        selector.select = select
        return undo

    def _beat(self) -> Callable[[], None]:
        period = max(self.threshold / 5, 0.001)  # uvloop takes less than half of that for none
        # A stall began between the last beat and this one's due time: half a period, in mean.
        self._unsure = period / 2
        self.since += self._unsure  # except the first, whose beginning is known
        left = False
        handle: asyncio.TimerHandle

        def beat() -> None:
            nonlocal handle
            if left:
                return
            now, runner = perf_counter(), sys._getframe().f_back
            self._engine = runner.f_code if runner else None
            self.waited += max(0.0, period - (thread_time() - self.cpu))
            self.waits += 1
            self._note(now)
            handle = self.loop.call_later(period, beat)
            self.since = now + period

        def undo() -> None:
            nonlocal left
            left = True
            if threading.get_ident() == self._thread:  # no other may; then, the last does nothing
                handle.cancel()

        handle = self.loop.call_later(0, beat)
        return undo

    def _note(self, now: float, cpu: float | None = None) -> float:
        """Keep the iteration that ends if it was too long, read the CPU clock, tell the lag.

        The clock costs 0.6 us. Read once a millisecond, not in every iteration, it still tells the
        CPU time of a stall to within that millisecond. Returns how long (s) an iteration has to be
        to be noted before that.
        """
        busy, before = now - self.since, self.cpu
        self.cpu = thread_time() if cpu is None else cpu
        if busy > self._unsure:
            busy += self._unsure
        if busy >= self.threshold:
            seen = self.iteration if self.iteration.since == self.since else Iteration(self.since)
            if seen.paused:  # between two runs of the loop, or at a breakpoint
                self.waited += busy - seen.divided
                busy = seen.divided
            if busy >= self.threshold:
                seen.end, seen.busy = min(now, self.since + busy), busy
                seen.cpu = self.cpu - before
                seen.woken = self.woken if self.since == self.woken_late else 0.0
                self.over.append(seen)
        self._window_lag = max(busy, self._window_lag)
        if getcurrent := getattr(sys.modules.get("greenlet"), "getcurrent", None):
            self._greenlet = weakref.ref(getcurrent())
        if now >= self._window_end:
            self.lag.append((now - self.entered, 1e3 * self._window_lag))
            self.lags.add(self._window_lag)
            self._window_end, self._window_lag = now + _LAG_WINDOW, 0.0
        return min(self._window_lag, self.threshold)

    def on_gc(self, phase: str, info: dict[str, int]) -> None:
        """Time the collections, as one of `gc.callbacks`; on whichever thread they are.

        When the collector calls this, its thread may first have to let others run: their time is
        no garbage's.
        """
        now, cpu = perf_counter(), thread_time()
        self._gc_here = threading.get_ident() == self._thread
        begins, frame = phase == "start", id(sys._getframe().f_back)
        self.collects = frame if begins and self._gc_here else 0
        elsewhere = begins and not self._gc_here
        self.collects_elsewhere = (threading.get_ident(), frame) if elsewhere else (0, 0)
        self._garbage[self._gc_here] += max(0.0, min(now - self._gc_began, cpu - self._gc_cpu))
        self._gc_began = now if begins else math.inf
        self._gc_cpu, self._gc_native = cpu, threading.get_native_id()

    @property
    def garbage(self) -> tuple[float, float]:
        """For how long (s) it was collected so far, on the loop's thread and on all others."""
        elsewhere, here = self._garbage
        going_on, cpu = perf_counter() - self._gc_began, thread_cpu(self._gc_native)
        going_on = max(0.0, going_on if cpu is None else min(going_on, cpu - self._gc_cpu))
        return here + going_on * self._gc_here, elsewhere + going_on * (not self._gc_here)
