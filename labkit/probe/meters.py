"""What the operating system knows of threads: who ran, who waited, who was kept from running.

A thread that wants the interpreter while another has it wakes up once a switch interval (5 ms) to
ask for it. So the count of its wake-ups proves whether it waited for the interpreter, or slept,
or was not let run by the system. Where a system does not count (macOS, Windows), CPU time decides.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import NamedTuple

try:
    from resource import RUSAGE_THREAD, getrusage

    def _switches() -> int | None:
        """How often this thread has waited for something."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw
except ImportError:  # macOS, Windows

    def _switches() -> int | None:
        return None


_LATE = 0.003  # s; a wake-up later than this has a reason
_QUIET = 0.0005  # s of CPU time; with less, no thread has done anything worth a reading


class Measured(NamedTuple):
    """The time (s) since the last reading."""

    at: float  # the moment of this reading
    took: float
    late: float  # how much later than asked the sampler woke up
    kept: float  # of that, how long another thread had the interpreter
    stopped: float  # of that, how long the process did not run at all
    cpu: float  # CPU time of the process
    loop_cpu: float | None  # CPU time of the loop's thread so far; None where the system won't say
    loop_queued: float  # for how long the loop's thread was ready, and no processor was free
    loop_runs: int | None  # how often the loop's thread was given a processor


def thread_cpu(native_id: int | None) -> float | None:
    """The CPU time (s) of a thread of this process; None where it is gone, or no one can tell."""
    if sys.platform == "linux" and native_id:
        with contextlib.suppress(OSError):
            return time.clock_gettime((~native_id << 3) | 6)  # as pthread_getcpuclockid makes it
    return None


class Meters:
    """Reads what has happened since the last reading. Of the sampler's thread, and used on it."""

    def __init__(self, loop_thread: int) -> None:
        self._loop_thread, self._file = loop_thread, -1
        with contextlib.suppress(OSError):
            path = f"/proc/self/task/{loop_thread}/schedstat"
            self._file = os.open(path, os.O_RDONLY)
        self._at = self._cpu = 0.0
        self._switches = self._runs = self._queued = 0
        self.ask_the_system(self.read(0.0))

    def read(self, asked: float) -> Measured:
        """What has happened since the last reading, of which the sampler asked to sleep so long."""
        now, cpu, kept = time.perf_counter(), time.process_time(), 0.0
        took, ran = now - self._at, cpu - self._cpu
        late = max(0.0, took - asked)  # its own work is short, and it can be kept there, too
        waited = ran  # where nobody counts, CPU time is all that there is
        if (switches := _switches()) is not None:
            waited = (switches - self._switches - 1) * sys.getswitchinterval()
            self._switches = switches
        if late > _LATE / 6 and waited > 0:
            # Native code can keep the interpreter and sleep: then the count says so. But it runs
            # ahead where another thread gives the interpreter away and takes it back often.
            kept = late if ran < late / 20 and waited > late / 2 else min(late, ran)
        stopped = max(0.0, late - max(kept, ran)) if late > _LATE else 0.0
        self._at, self._cpu = now, cpu
        return Measured(
            at=now,
            took=took,
            late=late,
            kept=kept,
            stopped=stopped,
            cpu=ran,
            loop_cpu=thread_cpu(self._loop_thread),
            loop_queued=0.0,
            loop_runs=None,
        )

    def ask_the_system(self, m: Measured, needed: bool = False) -> Measured:
        """Add what it knows of the loop's thread. Unlike `read`, it lets go of the interpreter."""
        queued, runs = self._queued, self._runs
        if self._file >= 0 and (needed or m.cpu > _QUIET or m.late > _LATE):
            try:
                _, self._queued, self._runs = map(int, os.pread(self._file, 99, 0).split())
            except OSError:  # the thread is gone
                self.close()
        known = self._runs - runs if self._file >= 0 else None
        return m._replace(loop_queued=(self._queued - queued) / 1e9, loop_runs=known)

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
