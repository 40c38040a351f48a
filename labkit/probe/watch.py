"""Watch an asyncio loop: how late it is, when it stalls, for how long, why, and at which line.

A loop is healthy while it keeps coming back to its selector. The probe times exactly that: from
each return of `select()` to the next call of it, the loop was busy with callbacks, one or many,
and everybody else waited. That is the stall's length, to the microsecond. (A `select()` that is
told not to wait is part of being busy.) While an iteration is overdue, a thread looks at what the
loop's thread is executing: that is the line.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter, process_time, sleep, thread_time
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from labkit.errors import LabError
from labkit.probe.stall import Collection, Evidence, Frame, LateLook, Look, Seen, Stall, judge, walk

log = logging.getLogger("labkit.probe")

_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

_LAG_WINDOW = 0.020  # s; one figure of lag for each
_TICK = 0.001  # s; see Probe._tick
_KEPT_WAITING = 0.003  # s; the sampler itself was late, so somebody may have kept the interpreter
_WOKEN_LATE = 0.0025  # s; epoll rounds up to a millisecond, so less than this is no sign


class Probe:
    """Watch the running loop for stalls: `with Probe() as probe:` inside any coroutine.

    Leaving it undoes everything it did. The first probe of a process tests itself on a loop and
    a stall of its own (about 50 ms), so that it cannot be blind unnoticed. Each stall is also
    logged, at level INFO, by the logger `labkit.probe`.

    A loop that has no selector (uvloop) is watched by a heartbeat, and durations are then right
    within a tenth of the threshold, or half a millisecond. On Windows, whose CPU clocks tick every
    16 ms, the cause of a stall shorter than two ticks is a guess.

    Args:
        threshold_ms: What counts as a stall, in milliseconds.

    Raises:
        LabError: There is no running loop, it is being watched already, or the self-test failed.
    """

    def __init__(self, threshold_ms: float = 50.0) -> None:
        if not threshold_ms >= 1:
            raise LabError(f"threshold_ms is {threshold_ms!r}; expected at least 1 millisecond.")
        self.threshold_ms = threshold_ms
        self._threshold = threshold_ms / 1e3
        self._selector: Any = None  # the loop's, if it has one
        self._since = math.inf  # when the present iteration became overdue, or will
        self._looks: list[Look] = []
        self._late: deque[LateLook] = deque(maxlen=200)
        self._collections: deque[Collection] = deque(maxlen=64)
        self._calm: dict[int, Seen] = {}
        self._overdue: deque[Evidence] = deque(maxlen=10_000)
        self._stalls: deque[Stall] = deque(maxlen=10_000)
        self._lag: deque[tuple[float, float]] = deque(maxlen=200_000)
        self._noise: deque[float] = deque(maxlen=10_000)
        self._judging = threading.Lock()
        self._log = log

    @property
    def method(self) -> str:
        """How this loop is watched: by "selector timing" or by a "heartbeat"."""
        return "selector timing" if self._selector is not None else "heartbeat"

    @property
    def stalls(self) -> list[Stall]:
        """Every stall so far, oldest first (the last 10,000)."""
        self._judge()
        return list(self._stalls)

    @property
    def lag(self) -> list[tuple[float, float]]:
        """(seconds since entry, the longest iteration in ms), for each 20 ms that had one."""
        return list(self._lag)

    @property
    def lag_now_ms(self) -> float:
        """For how long the loop has been busy at this moment; readable from any thread."""
        return max(0.0, 1e3 * (perf_counter() - self._since))

    @property
    def noise_ms(self) -> float:
        """How late the machine wakes a thread that only sleeps (p99, ms), while the loop is idle.

        That lateness is none of the service's: no time is known more exactly than this.
        """
        late = sorted(self._noise)
        return 1e3 * late[int(0.99 * (len(late) - 1))] if late else 0.0

    @property
    def noise_max_ms(self) -> float:
        """How late the machine was at the worst, in milliseconds."""
        return 1e3 * max(list(self._noise), default=0.0)

    def __enter__(self) -> Self:
        """Begin to watch the running loop."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise LabError(
                "Probe() was entered where no event loop runs. Enter it inside a coroutine:\n"
                "    async def main():\n        with labkit.Probe() as probe: ..."
            ) from None
        if self._loop in _watched:
            raise LabError("This loop is being watched by a probe already: use that one.")
        _self_test()
        # No public door leads to the selector of a loop that somebody else made.
        self._selector = getattr(self._loop, "_selector", None)
        self._thread = threading.get_ident()
        self._begin()
        gc.callbacks.append(self._on_gc)
        self._leave = threading.Lock()
        self._leave.acquire()
        self._sampler = threading.Thread(target=self._watch, name="labkit-probe", daemon=True)
        try:
            self._sampler.start()
        except BaseException:  # no more threads, for example: then nothing stays behind
            self._undo()
            gc.callbacks.remove(self._on_gc)
            raise
        _watched.add(self._loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo everything; a stall that is still going on counts as far as it came."""
        self._undo()
        now = self._window_end = perf_counter()  # the last window is shorter
        self._end(now)
        self._tick(now)
        self._since = math.inf
        self._leave.release()
        self._sampler.join()
        gc.callbacks.remove(self._on_gc)
        _watched.discard(self._loop)
        self._judge()

    # On the loop's thread: a clock reading or two an iteration, and the evidence of a stall.

    def _begin(self) -> None:
        self._entered = self._since = self._gc_began = perf_counter()
        self._cpu, self._process = thread_time(), process_time()
        self._woken_late = 0.0  # when the last select() that returned late should have returned
        self._window_end, self._window_lag = self._entered + _LAG_WINDOW, 0.0
        self._unsure = 0.0  # s; a heartbeat's iteration began up to this before it was overdue
        timed = self._selector is not None
        self._undo: Callable[[], None] = self._time_selector() if timed else self._beat()

    def _time_selector(self) -> Callable[[], None]:
        selector = self._selector
        wait, clock, tick, end = selector.select, perf_counter, self._tick, self._end
        beat = self._threshold / 5
        notable = next_tick = 0.0

        # It runs ten thousand times a second: hence locals, and no call that is not needed.
        def select(timeout: float | None = None) -> Any:
            nonlocal notable, next_tick
            now = clock()
            if now - self._since > notable:
                end(now)
                next_tick = now
            if now >= next_tick:  # before a wait too: if it ends late, the iteration began in it
                notable, next_tick = tick(now), now + _TICK
            if timeout == 0:  # callbacks are waiting: this select() is part of the next iteration
                self._since = now
                return wait(0)
            # Where another thread keeps the interpreter, select() returns late: it is then
            # overdue from the moment when it should have returned. So it never waits for longer
            # than a beat; asyncio takes an early and empty return in its stride.
            if timeout is None or timeout > beat:
                timeout = beat
            self._since = due = now + timeout
            events = wait(timeout)
            now = clock()
            if now - due > _WOKEN_LATE:
                self._woken_late = due
            else:
                self._since = now
                if now >= next_tick:
                    notable, next_tick = tick(now), now + _TICK
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
            self._end(now)
            handle = self._loop.call_later(period, beat)
            self._tick(now)
            self._since = now + period

        handle = self._loop.call_later(0, beat)
        return lambda: handle.cancel()

    def _tick(self, now: float) -> float:
        """Read the CPU clocks, close the window of lag, say which iteration is worth an `_end`.

        These two clocks cost 0.6 us each. Read once a millisecond, not in every iteration, they
        still tell the CPU time of a stall to within that millisecond.
        """
        self._cpu, self._process = thread_time(), process_time()
        if now >= self._window_end:
            self._lag.append((now - self._entered, 1e3 * self._window_lag))
            self._window_end, self._window_lag = now + _LAG_WINDOW, 0.0
        return min(self._window_lag, self._threshold)

    def _end(self, now: float) -> None:
        busy = now - self._since
        if busy > self._unsure:
            busy += self._unsure
        self._window_lag = max(busy, self._window_lag)
        if busy >= self._threshold:
            cpu, process = thread_time() - self._cpu, process_time() - self._process
            late = self._since == self._woken_late
            self._overdue.append(Evidence(self._since, busy, late, cpu, process - cpu, self._looks))

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        now = perf_counter()
        if phase == "start":
            self._gc_began = now
        elif now - self._gc_began > self._threshold / 4:
            own = threading.get_ident() == self._thread
            thread = None if own else threading.current_thread().name
            took, stack = now - self._gc_began, walk(sys._getframe(1))
            self._collections.append(Collection(self._gc_began, took, thread, stack))

    # On the sampler's thread: looks at an overdue iteration, and the verdict afterwards.

    def _watch(self) -> None:
        # The first look leaves time for a C call to be made to let go of the interpreter (the
        # switch interval, 5 ms) before a stall of exactly the threshold is over.
        first = max(self._threshold / 5, self._threshold / 2 - sys.getswitchinterval())
        idle, every = self._threshold / 2, self._threshold / 10
        self._calm, calm_at = self._look_around(), 0.0
        delay, asked = idle, perf_counter()
        while not self._leave.acquire(timeout=delay):
            now, since = perf_counter(), self._since
            due, age = asked + delay, now - since
            try:
                if now - due > _KEPT_WAITING:
                    self._late.append(LateLook(due, now, self._look_around()))
                elif age < 0 and self._late and self._late[-1].at > calm_at:
                    self._calm, calm_at = self._look_around(), now
                if age >= first:
                    self._look(since, age)
                elif age < 0:
                    self._noise.append(now - due)
                    self._process = process_time()  # the loop is idle, its thread's CPU unchanged
                if self._overdue and self._overdue[-1].since != since:
                    self._judge()
            except Exception:  # a failing instrument must not break what it measures
                log.exception("the probe's sampler failed and is switched off")
                return
            delay = every if age >= first else min(idle, first - age)
            asked = perf_counter()

    def _look(self, since: float, age: float) -> None:
        frame = sys._current_frames()[self._thread]
        stack, instruction = walk(frame), frame.f_lasti
        if self._since != since:
            return  # the iteration ended meanwhile: this would be another one's line
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task else None
        if not self._looks or self._looks[0].iteration != since:
            self._looks = []
        self._looks.append(Look(since, age, stack, instruction, name))

    def _look_around(self) -> dict[int, Seen]:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        not_these = (self._thread, threading.get_ident())
        return {
            ident: Seen(names.get(ident, "a nameless thread"), walk(frame), frame.f_lasti)
            for ident, frame in sys._current_frames().items()
            if ident not in not_these
        }

    def _judge(self) -> None:
        with self._judging:
            while self._overdue:
                seen = self._overdue.popleft()
                late, collections = list(self._late), list(self._collections)
                stall = judge(seen, self._entered, late, self._calm, collections)
                if stall is None:
                    self._noise.append(seen.busy)
                else:
                    self._stalls.append(stall)
                    self._log.info("%s", stall)


_testing = threading.Lock()
_tested = False


def _known_stall(seconds: float) -> None:
    sleep(seconds)


def _self_test() -> None:
    """Inject one known stall and find it, once per process, or fail loudly."""
    global _tested
    if threading.current_thread().name == "labkit-self-test":
        return
    with _testing:
        found: list[Stall] = []

        def test(seconds: float) -> None:
            async def main() -> None:
                probe = Probe(threshold_ms=10)
                probe._log = logging.Logger("nobody's stall", logging.CRITICAL)
                with probe:
                    await asyncio.sleep(0)
                    _known_stall(seconds)
                    await asyncio.sleep(0)
                    # Not after leaving, which ends every iteration, seen or not.
                    line = _known_stall.__code__.co_firstlineno + 1
                    known = Frame(__file__, line, _known_stall.__name__)
                    found.extend(stall for stall in probe.stalls if known in stall.stack)

            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(main())

        for seconds in (0.025, 0.1, 0.4):  # longer ones for a machine that is busy just now
            if not _tested:
                thread = threading.Thread(target=test, args=(seconds,), name="labkit-self-test")
                thread.start()
                thread.join()
                _tested = bool(found)
    if not _tested:
        raise LabError(
            "The probe made stalls of 25, 100 and 400 ms on a loop of its own and found none of "
            "them, so it would be blind here too. Expected: each is found, with its line. See "
            "whether something in this process replaces asyncio's event loop or its selector, "
            "and report it."
        )
