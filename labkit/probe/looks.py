"""Looks: a thread that sleeps while all is well, and looks at the loop's thread when it is overdue.

What it finds is added up at once (verdict.Iteration). Looks come ever more rarely as a stall grows
old, so that one of a day takes no more memory than a thousand looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

from labkit.probe.frames import (
    after_other_lines,
    is_library,
    is_users,
    lets_go,
    no_collection,
    only_entered,
)
from labkit.probe.meters import Measured, Meters, perf_counter, where_the_interpreter_is
from labkit.probe.origin import Place, place_in_task
from labkit.probe.stall import Stall
from labkit.probe.suspects import Suspects
from labkit.probe.verdict import Iteration, judge

if TYPE_CHECKING:
    from labkit.probe.watch import Probe

_STILL = 1.0  # s; a stall that goes on is told after this, or ten thresholds, and ever more rarely
_DEBUGGERS = {"pydevd.py", "pydevd_frame.py", "pydevd_sys_monitoring.py"}  # in any folder


class Sampler(threading.Thread):
    """The probe's thread. It alone reads other threads; no handler of the user's runs here."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(name="labkit-probe", daemon=True)
        self._probe, self._timer = probe, probe._timer
        where_the_interpreter_is()  # looked up once, and now: the first stall may begin at once
        self._loop_thread, self._loop_native = threading.get_ident(), threading.get_native_id()
        # Released, it rings: at each wake-up of an idle service, less work than an Event.
        self._bell, self._caught_up, self._left = threading.Lock(), threading.Event(), False
        self._bell.acquire()
        # The age (s) of an iteration that is worth a look, and of one that is worth a warning.
        self._first = max(self._timer.threshold / 5, self._timer.threshold / 2 - 0.005)
        self._warn_at = 0.0

    def catch_up(self) -> None:
        """Have it judge at once what is over."""
        self._caught_up.clear()
        self._ring()
        self._caught_up.wait(0.1)

    def leave(self) -> None:
        """Have it judge what there is, and end."""
        self._left = True
        self._ring()
        self.join()  # it calls nothing of the user's, so this is soon

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    def run(self) -> None:
        """Look at the loop until the probe is left."""
        meters = Meters(self._loop_native)
        try:
            self._watch(meters)
        except Exception:  # a failing instrument must not break what it measures
            text = "the probe's sampler failed and is switched off"
            self._probe._teller.warn(text, sys.exc_info())
            while not self._left:
                self._bell.acquire()
        finally:
            meters.close()
            with contextlib.suppress(Exception):  # whatever failed may fail again
                while self._timer.over:
                    self._probe._found(self._judge(self._timer.over.popleft()))

    def _watch(self, meters: Meters) -> None:
        timer, suspects = self._timer, Suspects(self._loop_thread)
        suspects.look(meters.read(0.0, timer.garbage))
        left, age, kept_at, waits = False, -1.0, -1.0, 0
        while not left:
            delay = self._pause(age)
            rung = self._bell.acquire(timeout=delay)
            left = self._left  # if so, this is the last round
            # All looks come before the meters ask the system: that lets go of the interpreter, and
            # a thread that was just made to let go of it moves on from its line.
            since = timer.since
            seen = self._look(since) if perf_counter() - since >= self._first else None
            m = meters.read(delay, timer.garbage, looks=seen is not None)
            suspects.collects = timer.collects_elsewhere
            who = suspects.who_kept_it(m)
            m.who_unsure = suspects.unsure
            meters.ask_the_system(m)
            waits, ended_waits = timer.waits, timer.waits - waits
            age, kept_at = m.at - since, m.at if who else kept_at
            timer.contended = m.at - kept_at < 1
            ended: list[Iteration] = []
            while timer.over and timer.over[0].end <= m.at:
                over = timer.over.popleft()
                ended.append(over)
                if over.woken:
                    over.add(min(over.woken, over.end), m, 0.0, who, waits=True)
                over.add(over.end, m, max(0.0, over.cpu - over.seen_cpu), who)
                self._probe._found(self._judge(over))
            if seen and seen not in ended:
                self._divide(seen, m, who)
            elif age < 0 and not (rung or m.kept):
                self._probe._noise.add(m.late)
            if m.kept >= timer.threshold and age < self._first and not ended:
                self._kept_while_waiting(m, who, ended_waits)
            if rung:
                self._caught_up.set()

    def _pause(self, age: float) -> float:
        """How long (s) to sleep, by the age (s) of the loop's present iteration.

        Below 40 ms, the first look is to come at about half the threshold: a C call is then made to
        let go of the interpreter (after 5 ms, the switch interval) before the stall is over.
        """
        threshold = self._timer.threshold
        if age >= self._first:
            return max(threshold / 10, age / 50)
        first = (0.52 if threshold < 0.04 else 0.65) * threshold
        return max(threshold / 10, first - max(0.0, age))

    @no_collection()
    def _look(self, since: float) -> Iteration | None:
        """See where the loop's thread is in that iteration; None if it is nowhere in it."""
        timer = self._timer
        if timer.iteration.since != since:
            timer.iteration = Iteration(since, timer.cpu)
            self._warn_at = max(_STILL, 10 * timer.threshold)
        seen, frame = timer.iteration, sys._current_frames().get(self._loop_thread)
        seen.asks, seen.other_lines, seen.collector_calls = False, (False, False), False
        if frame:
            seen.asks, seen.other_lines = lets_go(frame), after_other_lines(frame)
            seen.collector_calls = timer.collects not in (0, id(frame)) and not only_entered(frame)
        stack = timer.stack(frame)
        if timer.since != since:  # it ended: this would be another one's line
            return None
        seen.paused |= not timer.loop.is_running() or any(_is_debuggers(f.file) for f in stack)
        if seen.paused:
            return None
        task = None if seen.collector_calls else asyncio.current_task(timer.loop)
        seen.place = place_in_task(stack, task)
        seen.looks += 1
        if task:
            seen.tasks[seen.place.where].add(id(task))
        return seen

    def _divide(self, seen: Iteration, m: Measured, who: Place | None) -> None:
        """Divide the time up to this reading, and warn of a stall that does not end."""
        place = seen.place or Place()
        if who and _is_in(place, "submit") and _is_in(who, "_worker") and not is_users(who.line):
            who = who._replace(awaited_at=place.line)  # its work is being sent at this moment
        cpu = 0.0
        if m.loop_cpu is not None:
            cpu, seen.clock = max(0.0, m.loop_cpu - seen.clock), m.loop_cpu
        # A signal's handler runs wherever the loop is: in its wait, too.
        waits = bool(place.stack) and {f.file for f in place.stack} <= self._timer.wait_files
        seen.add(m.at, m, cpu, who, waits)
        age = m.at - seen.since
        if age >= self._warn_at:
            self._warn_at *= 2
            verdict = self._judge(seen)
            if isinstance(verdict, Stall):
                text = f"the loop is still held, for {age:.1f} s so far: {verdict}"
                self._probe._teller.warn(text)

    def _kept_while_waiting(self, m: Measured, who: Place | None, waits: int) -> None:
        """The loop waited for sockets, one was ready, but the loop could not run."""
        kept = m.kept
        if m.loop_runs is not None:  # the end of a wait is a wake-up that asks for nothing
            kept = min(kept, (m.loop_runs - waits) * sys.getswitchinterval())
        if kept >= self._timer.threshold:
            seen = Iteration(m.at - kept, woken=m.at)
            seen.add(m.at, m, 0.0, who, waits=True)
            self._probe._found(self._judge(seen))

    def _judge(self, seen: Iteration) -> Stall | float:
        return judge(seen, self._timer.threshold, self._timer.entered)


def _is_in(place: Place, function: str) -> bool:
    return any(f.function == function and is_library(f.file) for f in place.stack)


def _is_debuggers(file: str) -> bool:
    name = os.path.basename(file)
    return name in _DEBUGGERS or (name == "bdb.py" and is_library(file))
