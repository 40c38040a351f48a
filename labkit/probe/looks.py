"""Looks: a thread that sleeps while all is well, and looks at the loop's thread when it is overdue.

What it finds is divided at once into shares (verdict.Tally): identical looks are counted, not kept.
"""

from __future__ import annotations

import asyncio
import opcode
import os
import sys
import threading
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING

from labkit.probe.frames import is_library, is_users, users_frame, walk
from labkit.probe.meters import Measured, Meters, thread_cpu
from labkit.probe.origin import awaiting_line, sent_from, task_name
from labkit.probe.verdict import NOWHERE, Iteration, Place, Suspect, Tally, culprit

if TYPE_CHECKING:
    from labkit.probe.watch import Probe

_FOREIGN = 0.001  # s of CPU time of other threads, after which they are looked at
_STILL = 1.0  # s; a stall that goes on is told after this, or ten thresholds, and ever more rarely
_DEBUGGERS = {"bdb.py", "pydevd.py", "pydevd_frame.py", "pydevd_sys_monitoring.py"}
# A thread in one of the library's files of these names waits, and keeps nothing. Asked only where
# the system does not tell a thread's CPU time.
_WAITING = {"threading.py", "selectors.py", "queue.py", "socket.py", "thread.py"}
# A thread stands at these only where it is made to let go of the interpreter, or asks for it.
_LETS_GO = ("JUMP_BACKWARD", "POP_JUMP_BACKWARD", "RESUME")


class Sampler(threading.Thread):
    """The probe's thread. All its reading of other threads is done here, and no handler's work."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(name="labkit-probe", daemon=True)
        self._probe, self._loop = probe, probe._loop
        self._loop_thread, self._loop_native = probe._thread, threading.get_native_id()
        self._bell, self._answered, self._over = threading.Lock(), threading.Event(), False
        self._bell.acquire()
        self.tally = Tally(-1.0, -1.0)  # of the present iteration, if it is overdue
        self._loop_cpu = self._foreign = self._covered = 0.0
        self._places: dict[int, tuple[tuple[int, int], float | None]] = {}
        self._free: dict[int, tuple[int, int]] = {}  # where a thread ran without the interpreter
        self._kept_at = -1.0  # when a thread was last proved to keep the interpreter
        self._last: Place | None = None  # who kept the interpreter until a moment ago
        self._warn_at = 0.0

    def ring(self, over: bool = False) -> None:
        """Wake it: to leave, or to judge what is to be judged, which takes no time."""
        self._over |= over
        self._answered.clear()
        if self._bell.locked():
            self._bell.release()
        self._answered.wait(0.1)

    def run(self) -> None:
        """Until the probe is left."""
        meters = Meters(self._loop_native)
        try:
            self._watch(meters)
        except Exception:  # a failing instrument must not break what it measures
            error = sys.exc_info()
            self._probe._teller.warn("the probe's sampler failed and is switched off", error)
        finally:
            meters.close()
            self._answered.set()

    def _watch(self, meters: Meters) -> None:
        # The first look leaves time for a C call to be made to let go of the interpreter (the
        # switch interval, 5 ms) before a stall of exactly the threshold is over.
        threshold = self._probe._threshold
        first = max(threshold / 5, threshold / 2 - sys.getswitchinterval())
        idle = max(0.52 * threshold, min(0.7 * threshold, threshold - 3 * sys.getswitchinterval()))
        delay = idle
        self._look_around(meters.read(0.0))
        over = False
        while not over:
            asked = perf_counter()
            rung = self._bell.acquire(timeout=delay)
            over = self._over  # once more, then: it may have been kept until now
            # All looks come first: once the meters have asked the system, which lets go of the
            # interpreter, a thread that was made to let go of it is gone from its line.
            since = self._probe._since
            at = self._look(since) if perf_counter() - since >= first else None
            m = meters.read(delay)
            who = self._who_kept_it(m)
            m = meters.ask_the_system(m, needed=at is not None)
            now = m.at
            age = now - since
            self._ended(m, who)
            if who:
                self._kept_at = now
            self._probe._bound = 0.001 if now - self._kept_at < 1 else 0.0
            if at and self._covered <= since:  # else it had ended before the reading
                self._divide(at, m, who)
            elif age < 0 and not (rung or m.kept):
                self._probe._noise.add(max(0.0, now - asked - delay))
            if m.kept >= threshold and since > now - m.kept / 2:
                self._kept_while_waiting(m, who, now)
            self._probe._judge(m.at)
            if rung:
                self._answered.set()
            # A look a tenth of the threshold, and ever more rarely as the stall grows old.
            delay = max(threshold / 10, age / 50) if age >= first else idle
            if 0 <= age < first:
                delay = max(first - age, min(0.35 * threshold, idle - age))

    # The loop's thread.

    def _look(self, since: float) -> Place | None:
        """Where the loop's thread is in that iteration; None if nowhere that could hold it."""
        probe = self._probe
        if self.tally.since != since:
            self.tally = Tally(since, since)
            self.tally.clock = probe._cpu
            self._warn_at = max(_STILL, 10 * probe._threshold)
        tally = self.tally
        stack = walk(sys._current_frames().get(self._loop_thread), probe._engine)
        if probe._since != since or tally.paused:  # it ended: this would be another one's line
            return None
        if not self._loop.is_running() or any(_debugs(f.file) for f in stack):
            tally.paused = True
            return None
        task = asyncio.current_task(self._loop)
        key = (stack, id(task))
        if key not in tally.origins:
            line = None if is_users(users_frame(stack)) else probe._outer or awaiting_line(task)
            tally.origins[key] = Place(stack, task_name(task), None, line)
        tally.looks += 1
        if task:
            tally.tasks.add(id(task))
        return tally.origins[key]

    def _divide(self, at: Place, m: Measured, who: Place | None) -> None:
        """Divide the time up to this reading; the iteration can have ended just after it."""
        probe, tally, stack = self._probe, self.tally, at.stack
        if who and not who.awaited_at and any(f.function == "submit" for f in stack):
            who = who._replace(awaited_at=users_frame(stack))  # it is being sent at this moment
        waits = not stack or (stack[-1].function == "select" and stack[-1].file == probe._file)
        cpu = None if m.loop_cpu is None else max(0.0, m.loop_cpu - tally.clock)
        tally.clock = m.loop_cpu or 0.0
        tally.add(m.at - tally.until, m, cpu, at, who, waits)
        if m.at - tally.since >= self._warn_at:
            self._warn_at *= 2
            going_on = Iteration(tally.since, m.at - tally.since, tally.loop_cpu, 0.0, False, tally)
            if not isinstance(stall := probe._verdict(going_on), float):
                seconds = stall.duration_ms / 1e3
                probe._teller.warn(f"the loop is still held, for {seconds:.1f} s so far: {stall}")

    def _ended(self, m: Measured, who: Place | None) -> None:
        """Iterations that ended while this thread was kept: the time after their looks."""
        for seen in list(self._probe._overdue):
            tally, end = seen.tally, seen.since + seen.busy
            if end > m.at:  # after this reading: the next one tells of it
                break
            self._covered = max(self._covered, end)
            tail = end - tally.until
            if tail <= 0 or not (m.kept or m.stopped):
                continue
            at = max(tally.origins.values(), key=lambda p: len(p.stack), default=NOWHERE)
            stopped = m.stopped * min(1.0, tail / m.took)
            if not tally.looks and not (m.kept == m.late and m.cpu < m.late / 20):
                stopped = max(0.0, tail - seen.process)
            cpu = max(0.0, seen.cpu - tally.loop_cpu)
            tally.add(tail, m._replace(stopped=stopped), cpu, at, who, seen.woken_late)

    def _kept_while_waiting(self, m: Measured, who: Place | None, now: float) -> None:
        """The loop waited for sockets, one was ready, and it could not come back to it."""
        kept = min(m.kept, m.kept if m.loop_runs is None else m.loop_runs * sys.getswitchinterval())
        if kept >= self._probe._threshold and self._covered < now - m.kept:
            tally = Tally(now - kept, now - kept)
            tally.add(kept, m, 0.0, NOWHERE, who, True)
            self._probe._overdue.append(Iteration(now - kept, kept, 0.0, 0.0, True, tally))

    # The other threads.

    def _who_kept_it(self, m: Measured) -> Place | None:
        """The thread that is proved to have had the interpreter since the last look, if any."""
        ran = 0.0 if m.loop_cpu is None else m.loop_cpu - self._loop_cpu
        self._loop_cpu = m.loop_cpu or 0.0
        others = max(0.0, m.cpu - ran)
        self._foreign += others
        if self._foreign < _FOREIGN:
            return None
        self._foreign = 0.0
        suspects = self._look_around(m)
        who = culprit(suspects, m.kept, others)
        if not m.kept:
            self._last = None
        elif not suspects and others > m.kept / 2:
            who = self._last  # who kept it a moment ago has ended, and nobody else ran
        else:
            self._last = who
        return who

    def _look_around(self, m: Measured) -> list[Suspect]:
        """Where all other threads are; those that had CPU time while this one was kept."""
        frames, before, suspects = sys._current_frames(), self._places, list[Suspect]()
        self._places = {}
        for thread in threading.enumerate():
            ident = thread.ident or 0
            frame = frames.get(ident)
            if frame is None or ident in (self._loop_thread, self.ident):
                continue
            place, cpu = (id(frame), frame.f_lasti), thread_cpu(thread.native_id)
            old_place, old_cpu = before.get(ident, (None, 0.0))
            self._places[ident] = place, cpu
            used = None if cpu is None else cpu - (old_cpu or 0.0)
            if not m.kept and used and used > m.took / 2:
                self._free[ident] = place
            elif m.kept and self._free.get(ident) != place and not _stands(frame, used, m):
                # Back in its wait, it is not where it was when it kept the interpreter.
                stack = () if _waits(frame) else walk(frame)
                sent = None if is_users(users_frame(stack)) else sent_from(frame)
                proved = old_place not in (None, place) or _lets_go(frame)
                suspects.append(Suspect(thread.name, used, proved, stack, sent))
        self._free = {ident: at for ident, at in self._free.items() if ident in self._places}
        return suspects


def _stands(frame: FrameType, used: float | None, m: Measured) -> bool:
    """Whether a thread had no CPU time, or, where nobody can tell, is in a call that waits."""
    return _waits(frame) if used is None else used < 0.2 * m.kept


def _waits(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return os.path.basename(file) in _WAITING and is_library(file)


def _lets_go(frame: FrameType) -> bool:
    name = opcode.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
    return name.startswith(_LETS_GO)


def _debugs(file: str) -> bool:
    return os.path.basename(file) in _DEBUGGERS
