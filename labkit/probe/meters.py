"""What the operating system knows of threads: who ran, who waited, who was kept from running.

A thread that wants the interpreter while another has it wakes up once a switch interval (5 ms) to
ask for it. So the count of its wake-ups proves whether it waited for the interpreter, or slept, or
was not let run by the system. Where a system does not count (macOS, Windows), CPU time decides.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import NamedTuple

try:
    from resource import RUSAGE_THREAD, getrusage

    def _waits() -> int | None:
        """How often this thread has waited for something."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw
except ImportError:  # macOS, Windows

    def _waits() -> int | None:
        return None


_LATE = 0.0005  # s; a sampler that wakes up later than this was kept by somebody
_VERY_LATE = 0.003  # s; or, if the process did nothing meanwhile, by the machine


class Measured(NamedTuple):
    """The time (s) since the last reading."""

    at: float  # the moment of this reading
    took: float
    late: float  # how much later than asked the sampler woke up
    kept: float  # of that, how long it waited for the interpreter
    stopped: float  # of that, how long the process did not run at all
    others: float  # CPU time of all threads but the loop's; of all, if its own is not known
    loop_cpu: float | None  # CPU time of the loop's thread so far; None where the system won't say
    garbage: float = 0.0  # for how long garbage was collected on the loop's thread
    loop_queued: float = 0.0  # how long the loop's thread was ready and no processor was free
    loop_runs: int | None = None  # how often the loop's thread was given a processor


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
        self._at = self._cpu = self._own = self._loop_cpu = self._garbage = 0.0
        self._waits = self._runs = self._queued = 0
        self.ask_the_system(self.read(0.0, 0.0))

    def read(self, asked: float, garbage: float) -> Measured:
        """What has happened since the last reading.

        Args:
            asked: For how long (s) the sampler wanted to sleep meanwhile.
            garbage: For how long (s) garbage has been collected on the loop's thread so far.
        """
        now, cpu, loop_cpu = time.perf_counter(), time.process_time(), thread_cpu(self._loop_thread)
        took, ran = now - self._at, cpu - self._cpu
        others = ran if loop_cpu is None else max(0.0, ran - (loop_cpu - self._loop_cpu))
        waited = ran
        if (waits := _waits()) is not None:
            waited = (waits - self._waits - 1) * sys.getswitchinterval()  # one was its sleep
            self._waits = waits
        late = max(0.0, took - asked)
        own = time.thread_time()
        waited += own - self._own  # this thread has kept it, if with a garbage collection
        kept = max(0.0, min(late, waited)) if late > _LATE else 0.0
        if ran > late / 20:  # who has it runs, or the machine keeps that thread from running
            kept = min(kept, ran)
        stopped = max(0.0, late - max(kept, ran)) if late > _VERY_LATE else 0.0
        collecting = max(0.0, garbage - self._garbage)
        self._at, self._cpu, self._own = now, cpu, own
        self._loop_cpu, self._garbage = loop_cpu or 0.0, garbage
        return Measured(now, took, late, kept, stopped, others, loop_cpu, collecting)

    def ask_the_system(self, m: Measured) -> Measured:
        """Add what it knows of the loop's thread. Unlike `read`, it lets go of the interpreter."""
        if self._file < 0:
            return m
        queued, runs = self._queued, self._runs
        _, self._queued, self._runs = map(int, os.pread(self._file, 99, 0).split())
        return m._replace(loop_queued=(self._queued - queued) / 1e9, loop_runs=self._runs - runs)

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
