"""Looks: a thread that sleeps while all is well, and looks at the loop's thread when it is overdue.

What it finds is divided at once into shares (verdict.Tally). Looks come ever more rarely as a stall
grows old, so a stall of a day takes no more memory than a thousand looks.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from time import perf_counter

from labkit.probe import timing
from labkit.probe.meters import Measured, Meters
from labkit.probe.origin import Place, place_in_task
from labkit.probe.stall import Stall
from labkit.probe.suspects import Suspects
from labkit.probe.verdict import Iteration, Tally, judge

_STILL = 1.0  # s; a stall that goes on is told after this, or ten thresholds, and ever more rarely
_DEBUGGERS = {"bdb.py", "pydevd.py", "pydevd_frame.py", "pydevd_sys_monitoring.py"}


class Sampler(threading.Thread):
    """The probe's thread. All its reading of other threads is done here, and no handler's work.

    Args:
        timer: The loop's side.
        found: Called with each verdict: a stall, or for how long (s) the machine was late.
        noise: Called with how late (s) this thread woke up while nothing kept it.
        warn: Called with what is to be said at once: a text, and what `sys.exc_info()` returned.
    """

    def __init__(
        self,
        timer: timing.Timer,
        found: Callable[[Stall | float], None],
        noise: Callable[[float], None],
        warn: Callable[..., None],
    ) -> None:
        super().__init__(name="labkit-probe", daemon=True)
        self._timer, self._found, self._noise, self._warn = timer, found, noise, warn
        self._loop_native = threading.get_native_id()
        self._left = threading.Lock()
        self._left.acquire()
        self._warn_at = 0.0
        self._first = timer.threshold / 5  # s; the age of an iteration that is worth a look

    def leave(self) -> None:
        """Let it judge what there is and end. It calls nothing of the user's, so soon."""
        self._left.release()
        self.join()

    def run(self) -> None:
        """Until the probe is left."""
        meters = Meters(self._loop_native)
        try:
            self._watch(meters)
        except Exception:  # a failing instrument must not break what it measures
            self._warn("the probe's sampler failed and is switched off", sys.exc_info())
            self._left.acquire()
        finally:
            meters.close()
            while self._timer.over:
                self._judge(self._timer.over.popleft())

    def _watch(self, meters: Meters) -> None:
        timer, suspects = self._timer, Suspects(self._timer.thread)
        suspects.look(meters.read(0.0))
        left, age = False, -1.0
        while not left:
            delay = self._pause(age)
            left = self._left.acquire(timeout=delay)
            # All looks come first: once the meters have asked the system, which lets go of the
            # interpreter, a thread that was made to let go of it is gone from its line.
            since = timer.since
            looked = perf_counter() - since >= self._first and self._look(since)
            tally = timer.tally
            m = meters.read(delay)
            who = suspects.who_kept_it(m)
            m = meters.ask_the_system(m)
            age = m.at - since
            ended = self._judge_ended(m, who)
            if looked and tally not in ended:
                self._divide(tally, m, who)
            elif age < 0 and not (left or m.kept):
                self._noise(m.late)
            if m.kept >= timer.threshold and since > m.at - m.kept / 2 and not ended:
                self._kept_while_waiting(m, who)

    def _pause(self, age: float) -> float:
        """How long (s) to sleep, by the age (s) of the loop's present iteration.

        A first look comes at half the threshold: a C call is then made to let go of the interpreter
        (after 5 ms, the switch interval) before a stall of 10 ms is over.
        """
        threshold = self._timer.threshold
        if age >= self._first:
            return max(threshold / 10, age / 50)
        return 0.35 * threshold if age >= 0 else 0.52 * threshold

    def _look(self, since: float) -> bool:
        """See where the loop's thread is in that iteration; False if it is nowhere in it."""
        timer = self._timer
        if timer.tally.since != since:
            timer.tally = Tally(since, clock=timer.cpu)
            self._warn_at = max(_STILL, 10 * timer.threshold)
        tally = timer.tally
        stack = timer.stack(sys._current_frames().get(timer.thread))
        if timer.since != since:  # it ended: this would be another one's line
            return False
        if not timer.loop.is_running() or any(
            os.path.basename(f.file) in _DEBUGGERS for f in stack
        ):
            tally.paused = True
        if tally.paused:
            return False
        task = asyncio.current_task(timer.loop)
        tally.place = place_in_task(stack, task)
        tally.looks += 1
        tally.tasks |= {id(task)} if task else set()
        return True

    def _divide(self, tally: Tally, m: Measured, who: Place | None) -> None:
        """Divide the time up to this reading; the iteration can have ended just after it."""
        stack = tally.place.stack if tally.place else ()
        if who and not who.awaited_at and any(f.function == "submit" for f in stack):
            # It is being sent at this moment, so nobody awaits it yet.
            who = who._replace(awaited_at=(tally.place or who).line)
        waits = bool(stack) and stack[0].file == timing.__file__
        cpu = 0.0
        if m.loop_cpu is not None:
            cpu, tally.clock = max(0.0, m.loop_cpu - tally.clock), m.loop_cpu
        tally.add(m.at, m, cpu, who, waits)
        age = m.at - tally.since
        if age >= self._warn_at:
            self._warn_at *= 2
            stall = self._verdict(Iteration(tally.since, age, tally.loop_cpu, False, tally))
            if isinstance(stall, Stall):
                self._warn(f"the loop is still held, for {age:.1f} s so far: {stall}")

    def _judge_ended(self, m: Measured, who: Place | None) -> list[Tally]:
        """Judge the iterations that had ended before this reading, with the time after the looks."""
        ended = []
        over = self._timer.over
        while over and over[0].end <= m.at:
            seen = over.popleft()
            tally = seen.tally
            ended.append(tally)
            tally.add(seen.end, m, max(0.0, seen.cpu - tally.loop_cpu), who, seen.woken_late)
            self._judge(seen)
        return ended

    def _kept_while_waiting(self, m: Measured, who: Place | None) -> None:
        """The loop waited for sockets, one was ready, and it could not come back to it."""
        asked = m.kept if m.loop_runs is None else m.loop_runs * sys.getswitchinterval()
        kept = min(m.kept, asked)
        if kept >= self._timer.threshold:
            tally = Tally(m.at - kept)
            tally.add(m.at, m, 0.0, who, waits=True)
            self._judge(Iteration(m.at - kept, kept, 0.0, True, tally))

    def _judge(self, seen: Iteration) -> None:
        self._found(self._verdict(seen))

    def _verdict(self, seen: Iteration) -> Stall | float:
        timer = self._timer
        return judge(seen, timer.threshold, timer.entered, list(timer.collections))
