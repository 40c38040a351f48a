"""Which other thread kept the interpreter, if that can be proved.

CPU time is no proof: hashing, compression and drivers let go of the interpreter while they run. A
thread is named if it stands where only a thread stands that had the interpreter; or if its line
alone can have been it.
"""

import math
import os
import sys
import threading
from collections import defaultdict
from types import FrameType
from typing import NamedTuple

from labkit.probe.frames import (
    Frame,
    after_other_lines,
    is_library,
    lets_go,
    no_collection,
    only_entered,
)
from labkit.probe.meters import COUNTS, Measured, perf_counter, thread_cpu
from labkit.probe.origin import Place, place_in_thread

_MOST = 1000  # calls remembered
_WORTH = 0.001  # s of CPU time of other threads, after which they are looked at
# In these files of the library's, a thread waits for work, and what it did is no longer on its
# stack; except in a `run`, where it calls a function in C.
_WAITING = {"threading.py", "selectors.py", "queue.py", "socket.py", "thread.py"}


class Suspect(NamedTuple):
    """A thread that had CPU time while the interpreter was kept."""

    cpu: float | None  # s; None where the system does not tell
    # 1: it let go of the interpreter when made to; 0: nothing; -1: in this call it runs without,
    # and may have had it before.
    proved: int
    place: Place
    unsure: bool = False  # it may have been at another line before
    finalizes: bool = False  # while it collects garbage, that calls code in Python


class Suspects:
    """Watches all threads but the loop's and its own."""

    def __init__(self, loop_thread: int) -> None:
        self._loop_thread = loop_thread
        self._had: dict[int, float | None] = {}  # by thread, its CPU time (s) so far
        # The file, first line and instruction of calls in which any thread ever ran without it.
        self._run_without = set[tuple[str, int, int]]()
        self._ran = 0.0
        self.unsure = False  # whether who kept it may have been at another of its lines
        self.collects = 0, 0  # the thread that collects garbage, and the frame in which it does

    def who_kept_it(self, m: Measured) -> Place | None:
        """Where the thread is that is proved to have kept the interpreter since the last look."""
        self._ran += m.others
        if self._ran < _WORTH:
            return None
        ran, self._ran = self._ran, 0.0
        suspects = self.look(m, ran)
        who = culprit(suspects, m, ran)
        self.unsure = any(s.unsure for s in suspects if s.place is who)
        m.finalizes = any(s.finalizes for s in suspects if s.place is who)
        return who

    def look(self, m: Measured, unaccounted: float = 0.0) -> list[Suspect]:
        """Where the threads are that ran while the interpreter was kept.

        `unaccounted` is the CPU time (s) of all threads but the loop's since the last look. No
        frame is held for longer than this: what a function used is to die with it.
        """
        with no_collection():
            frames = sys._current_frames()
        suspects = self._look(frames, m, unaccounted)
        del frames  # with what ended meanwhile: this can run any code, so no lock is held
        return suspects

    def _look(self, frames: dict[int, FrameType], m: Measured, unaccounted: float) -> list[Suspect]:
        suspects = list[Suspect]()
        # With this very frame in it, all threads' frames and locals would live until a collection.
        for mine in (self._loop_thread, threading.get_ident()):
            frames.pop(mine, None)
        before, self._had = self._had, {}
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for ident, frame in frames.items():  # of those that the module does not know, too
            thread = threads.get(ident)
            native = thread.native_id if thread else None
            cpu, then = thread_cpu(native), perf_counter()
            ran = None if cpu is None else cpu - (before.get(ident) or 0.0)
            self._had[ident] = cpu
            call = frame.f_code.co_filename, frame.f_code.co_firstlineno, frame.f_lasti
            worth = m.kept or (m.took if call not in self._run_without else math.inf)
            if ran is None or ran >= 0.2 * worth:
                file, calls = frame.f_code.co_filename, frame.f_code.co_name == "run"
                waits = os.path.basename(file) in _WAITING and is_library(file)
                works = not waits or calls or only_entered(frame)
                name = thread.name if thread else "unnamed"
                with no_collection():  # of one thread at a time: it is to be short
                    proved = int(lets_go(frame))  # before the frame is looked into
                    unsure = m.may_be_after(after_other_lines(frame))
                    place = place_in_thread(frame if works else None, name)
                # The interpreter is here, and it runs all the same (not only to ask for it); or it
                # was free, and it ran. Where it waits for work, the call tells nothing of before.
                now = (thread_cpu(native) or 0.0) - (cpu or 0.0)
                runs = now > 0.75 * (perf_counter() - then)
                was_free = not (m.asked if COUNTS else m.kept) and ident in before
                runs |= was_free and (ran or 0.0) > m.took / 2
                if runs and len(self._run_without) < _MOST:
                    self._run_without.add(call)
                if runs or (works and call in self._run_without and not proved):
                    proved = -1
                collects = ident == self.collects[0] and not only_entered(frame)
                finalizes = collects and id(frame) != self.collects[1]
                if m.kept:
                    suspects.append(Suspect(ran, proved, place, unsure, finalizes))
            unaccounted -= ran or 0.0
        # Those without a CPU clock had no more than what is left when the others are counted; and
        # if all have one, those that have ended since.
        if unaccounted < 0.2 * m.kept:
            return [s for s in suspects if s.cpu is not None]
        ended = Suspect(unaccounted, 0, Place())
        return suspects if any(s.cpu is None for s in suspects) else [*suspects, ended]


def culprit(suspects: list[Suspect], m: Measured, others_cpu: float) -> Place | None:
    """The one of those that ran meanwhile that is proved to have kept the interpreter so long.

    `others_cpu` (s) is that of all threads but the loop's.
    """
    if proved := [s for s in suspects if s.proved == 1]:
        cpu = sum(others_cpu if s.cpu is None else s.cpu for s in proved)
        most = max((s.cpu or 0.0 for s in suspects if not s.proved), default=0.0)
        # It had the interpreter for a part of that time; another can have had it for more.
        return max(proved, key=_cpu).place if cpu >= max(m.kept, most) / 1.5 else None
    # To have moved on in its code is no proof: one that came back from a call without the
    # interpreter has, too. So nothing is proved beside another line that can have kept it for as
    # long, or beside a thread whose CPU time nobody knows; nor of a line whose threads had more CPU
    # time than has passed: they ran without.
    by_line = defaultdict[Frame | None, list[Suspect]](list)
    for s in suspects:
        by_line[s.place.line].append(s)
    # Another can have slept with the interpreter for as long as these did not run.
    enough = 0.8 * (m.kept + m.idle)
    able = [line for line in by_line.values() if sum(map(_cpu, line)) >= enough]
    if len(able) != 1 or any(s.cpu is None for s in suspects):
        return None
    if sum(map(_cpu, able[0])) > 1.2 * m.took:
        return None
    if any(s.proved < 0 or s.place.thread is None for s in able[0]):  # or it has ended
        return None
    return max(able[0], key=_cpu).place


def _cpu(suspect: Suspect) -> float:
    return suspect.cpu or 0.0
