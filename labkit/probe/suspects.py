"""Which other thread kept the interpreter, if that can be proved.

CPU time is no proof: hashing, compression and drivers let go of the interpreter while they run. A
thread is named if it moved on in its code, or stands where only a thread stands that had the
interpreter; or if it alone can have been it.
"""

import os
import sys
import threading
from time import perf_counter
from types import FrameType
from typing import NamedTuple

from labkit.probe.frames import (
    after_other_lines,
    is_library,
    lets_go,
    no_collection,
    only_entered,
)
from labkit.probe.meters import Measured, thread_cpu
from labkit.probe.origin import Place, place_in_thread

_WORTH = 0.001  # s of CPU time of other threads, after which they are looked at
# In these files of the library's, a thread waits for work, and what it did is no longer on its
# stack; except in a `run`, where it calls a function in C.
_WAITING = {"threading.py", "selectors.py", "queue.py", "socket.py", "thread.py"}


class Suspect(NamedTuple):
    """A thread that had CPU time while the interpreter was kept."""

    cpu: float | None  # s; None where the system does not tell
    # 2: it let go of the interpreter when made to; 1: it moved on; 0: nothing; -1: at this moment,
    # it runs without (and may have had it before).
    proved: int
    place: Place
    unsure: bool = False  # it may have been at another line before


class Suspects:
    """Watches all threads but the loop's and its own."""

    def __init__(self, loop_thread: int) -> None:
        self._loop_thread = loop_thread
        # By thread: its frame and instruction, its CPU time (s), and whether it ran there while the
        # interpreter was free.
        self._seen: dict[int, tuple[tuple[int, int], float | None, bool]] = {}
        # The last reading's frames, held until the next one: so long, an id means one frame.
        self._held, self._ended = list[FrameType](), list[FrameType]()
        self._ran = 0.0
        self._last: Place | None = None  # who kept it until the last look
        self.unsure = False  # whether that may have been another of its lines

    def who_kept_it(self, m: Measured) -> Place | None:
        """Where the thread is that is proved to have kept the interpreter since the last look."""
        if not m.kept:
            self._last = None
        self._ran += m.others
        if self._ran < _WORTH:
            self._ended, self._held = self._held, []
            return None
        ran, self._ran = self._ran, 0.0
        suspects = self.look(m, ran)
        if suspects or ran < m.kept / 2:
            self._last = culprit(suspects, m, ran)
            self.unsure = any(s.unsure for s in suspects if s.place is self._last)
            return self._last
        last, self._last = self._last, None  # it has ended since: what comes next is not its work
        return last

    def let_go(self) -> None:
        """Let go of frames that have ended: this can run any code, so no lock is held meanwhile."""
        self._ended = []

    @no_collection()
    def look(self, m: Measured, unaccounted: float = 0.0) -> list[Suspect]:
        """Where the threads are that ran while the interpreter was kept.

        `unaccounted` is the CPU time (s) of all threads but the loop's since the last look.
        """
        frames, suspects = sys._current_frames(), list[Suspect]()
        # With this very frame in it, all threads' frames and locals would live until a collection.
        for mine in (self._loop_thread, threading.get_ident()):
            frames.pop(mine, None)
        self._ended, self._held = self._held, [*frames.values()]
        before, self._seen = self._seen, {}
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for ident, frame in frames.items():  # of those that the module does not know, too
            thread = threads.get(ident)
            was_at, had, was_free = before.get(ident, (None, None, False))
            native, at = thread.native_id if thread else None, (id(frame), frame.f_lasti)
            cpu, then = thread_cpu(native), perf_counter()
            ran = None if cpu is None else cpu - (had or 0.0)
            free = (was_free and was_at == at) or (not m.kept and (ran or 0.0) > m.took / 2)
            self._seen[ident] = at, cpu, free
            if m.kept and not free and (ran is None or ran >= 0.2 * m.kept):
                # Without a CPU clock, a thread that woke up for a microsecond has moved on, too.
                # And one that ran in a call without the interpreter has only come back from it.
                moved = cpu is not None and was_at not in (None, at) and not was_free
                file, calls = frame.f_code.co_filename, frame.f_code.co_name == "run"
                waits = os.path.basename(file) in _WAITING and is_library(file)
                works = not waits or calls or only_entered(frame)
                proved = 2 if lets_go(frame) else int(moved)  # before the frame is looked into
                unsure = m.may_be_after(after_other_lines(frame))
                name = thread.name if thread else "unnamed"
                place = place_in_thread(frame if works else None, name)
                if (thread_cpu(native) or 0.0) - (cpu or 0.0) > (perf_counter() - then) / 2:
                    proved = -1  # the interpreter is here
                suspects.append(Suspect(ran, proved, place, unsure))
            unaccounted -= ran or 0.0
        # Those without a CPU clock had no more than what is left when the others are counted.
        return [s for s in suspects if s.cpu is not None or unaccounted >= 0.2 * m.kept]


def culprit(suspects: list[Suspect], m: Measured, others_cpu: float) -> Place | None:
    """The one of those that ran meanwhile that is proved to have kept the interpreter so long.

    `others_cpu` (s) is that of all threads but the loop's: one that has ended since is in it.
    """
    # A thread that lets go of the interpreter has moved on, too. And beside one whose CPU time
    # nobody knows, to have moved on proves nothing.
    best = max((s.proved for s in suspects), default=0)
    unsure = best < 2 and len({s.cpu is None for s in suspects}) == 2
    proved = [s for s in suspects if s.proved == best > 0 and not unsure]
    # Another can have slept with the interpreter for as long as these did not run.
    kept = m.kept + m.idle
    enough = m.kept / 4 if best == 2 else 0.8 * kept
    lines = {s.place.line for s in suspects}
    if not unsure and len(lines) == 1 and all(s.proved == 0 for s in suspects):
        proved, enough = suspects, max(enough, others_cpu / 4)  # who else can have been it?
    cpu = sum(others_cpu if s.cpu is None and s.proved else s.cpu or 0.0 for s in proved)
    return max(proved, key=lambda s: s.cpu or 0.0).place if proved and cpu >= enough else None
