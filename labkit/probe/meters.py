"""What the operating system knows of threads: who ran, who waited, who was kept from running.

A thread that wants the interpreter while another has it wakes up once a switch interval (5 ms) to
ask for it. So the count of its wake-ups tells whether it waited for the interpreter, or slept, or
was not let run by the system. Packets and short sleeps wake it up as often: then the system call in
which it is tells, and at what a futex is. Where a system does not count (macOS, Windows), CPU time
decides.
"""

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from functools import cache, partial

try:
    from resource import RUSAGE_THREAD, getrusage

    COUNTS = True
except ImportError:  # macOS, Windows
    COUNTS = False

# The clock, in disguise: a test that freezes the time replaces each name that a module has for it.
perf_counter = partial(time.perf_counter)
# The number of the system call in which a thread waits for the interpreter, by the machine.
_FUTEX = {"x86_64": b"202", "aarch64": b"98"}
_AT_ONCE = 0.00015  # s
_SHORT = 0.0003  # s; a sleep that is longer is no `sleep(0)`
_LATE = 0.0005  # s; a sampler that wakes up later than this was kept by somebody
_VERY_LATE = 0.003  # s; so late, and no CPU time used: the machine kept it


@dataclass(slots=True)
class Measured:
    """The time (s) since the last reading."""

    at: float  # the moment of this reading
    took: float
    late: float  # how much later than asked the sampler woke up
    kept: float  # of that, how long it waited for the interpreter while threads ran
    stopped: float  # of that, how long the process did not run at all
    others: float  # CPU time of all threads but the probe's and, if it is known, the loop's
    loop_cpu: float | None  # CPU time of the loop's thread so far; None where the system won't say
    garbage: float = 0.0  # for how long garbage was collected on the loop's thread
    elsewhere: float = 0.0  # and on others
    idle: float = 0.0  # of `late`, how long it waited for the interpreter while no thread ran
    loop_queued: float = 0.0  # how long the loop's thread was ready and no processor was free
    asked: int = 0  # how often the sampler waited for the interpreter; 0 where nobody counts
    finalizes: bool = False  # who had it ran what the collector calls, which is no collecting
    who_unsure: bool = False  # the thread that had it may have been at another of its lines
    loop_waits: str = ""  # its thread, in a system call, for the "interpreter" or "other"
    loop_runs: int | None = None  # how often the loop's thread was given a processor

    def may_be_after(self, other_lines: tuple[bool, bool]) -> bool:
        """Whether who had the interpreter had it at another line; see `after_other_lines`.

        What runs in Python lets go at once. What came late was in C, perhaps on the line before.
        """
        operators, any_other = other_lines
        return operators or (any_other and self.late % sys.getswitchinterval() > _AT_ONCE)


def thread_cpu(native_id: int | None) -> float | None:
    """The CPU time (s) of a thread of this process; None where it is gone, or no one can tell."""
    if sys.platform == "linux" and native_id:
        with contextlib.suppress(OSError):
            return time.clock_gettime((~native_id << 3) | 6)  # as pthread_getcpuclockid makes it
    return None


@cache
def where_the_interpreter_is() -> range:
    """The addresses of the memory in which it keeps its lock; empty where nobody can tell."""
    # A small Python may have no ctypes, or not say where its interpreter is.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import ctypes

        address = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
        with open("/proc/self/maps") as maps:
            for line in maps:
                begin, end = (int(number, 16) for number in line.split()[0].split("-"))
                if begin <= address < end:
                    return range(begin, end)
    return range(0)


class Meters:
    """Reads what has happened since the last reading. For the sampler's thread only."""

    def __init__(self, loop_thread: int) -> None:
        self._loop_thread, self._file, self._own, self._call = loop_thread, -1, -1, -1
        with contextlib.suppress(OSError):
            self._file = os.open(f"/proc/self/task/{loop_thread}/schedstat", os.O_RDONLY)
            self._own = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
            self._futex = _FUTEX.get(os.uname().machine)
            self._interpreter = where_the_interpreter_is()
            if self._futex and self._interpreter and sys.maxsize > 2**32:
                import ctypes

                self._call = os.open(f"/proc/self/task/{loop_thread}/syscall", os.O_RDONLY)
                # Unlike os.pread, this keeps the interpreter: the loop's thread stays where it is.
                self._pread, size = ctypes.PyDLL(None).pread, ctypes.c_size_t
                self._pread.argtypes = [ctypes.c_int, ctypes.c_char_p, size, ctypes.c_long]
                self._answer = ctypes.create_string_buffer(40)
        self._opened = {
            file: os.fstat(file) for file in (self._file, self._own, self._call) if file >= 0
        }
        self._totals, self._waits, self._queued, self._runs = (0.0,) * 6, 0, (0, 0), 0
        self.ask_the_system(self.read(0.0, (0.0, 0.0)))

    def read(self, asked: float, garbage: tuple[float, float], looks: bool = False) -> Measured:
        """What has happened since the last reading.

        Args:
            asked: For how long (s) the sampler wanted to sleep meanwhile.
            garbage: For how long (s) it has been collected so far, on the loop's thread and others.
            looks: Whether the loop is overdue, and it is worth a moment to see if it sleeps.
        """
        now, loop_cpu, before = perf_counter(), thread_cpu(self._loop_thread), self._totals
        self._totals = (now, time.process_time(), time.thread_time(), loop_cpu or 0.0, *garbage)
        differences = (max(0.0, new - old) for old, new in zip(before, self._totals, strict=True))
        took, cpu, own_cpu, loop_ran, here, elsewhere = differences
        others, late = max(0.0, cpu - loop_ran - own_cpu), max(0.0, took - asked)
        waits, self._waits = self._waits, getrusage(RUSAGE_THREAD).ru_nvcsw if COUNTS else 0
        asks = max(0, self._waits - waits - 1)  # one of the waits was its sleep
        m = Measured(now, took, late, 0.0, 0.0, others, loop_cpu, here, elsewhere, asked=asks)
        if late > _LATE:
            # Its own CPU time is a garbage collection's.
            waited = asks * sys.getswitchinterval() + own_cpu
            wanted = max(0.0, min(late, waited if COUNTS else cpu))
            # Whoever had it may have slept with it, or have waited for a processor.
            m.kept = min(wanted, cpu) if cpu > late / 20 else wanted
            if late > _VERY_LATE:
                m.idle, m.stopped = wanted - m.kept, max(0.0, late - max(wanted, cpu))
        patience = _SHORT if others > took / 4 else 0.0  # else there is no such thread
        if looks and (patience or late > _LATE):
            m.loop_waits = self._loop_waits(now + patience)
        return m

    def _loop_waits(self, until: float) -> str:
        """For what the loop's thread waits: "interpreter", "other", or "" where it is not known.

        Looked at until some moment: beside a thread that computes, this one often comes in just
        when the loop's has let go for a `sleep(0)`.
        """
        waits = ""
        while waits != "interpreter":
            if self._call < 0 or self._pread(self._call, self._answer, 39, 0) <= 0:
                return ""
            call, *arguments = self._answer.value.split()
            waits = "other" if call.isdigit() else ""  # else it is "running"
            if call == self._futex and int(arguments[0], 16) in self._interpreter:
                waits = "interpreter"  # else, for a lock
            if perf_counter() >= until:
                break
        return waits

    def ask_the_system(self, m: Measured) -> None:
        """Add what it knows of the two threads. Unlike `read`, it lets go of the interpreter."""
        if self._file < 0:
            return
        try:
            _, queued, runs = map(int, os.pread(self._file, 99, 0).split())
            own = int(os.pread(self._own, 99, 0).split()[1])
        except (OSError, ValueError):  # the thread is gone, or a daemon has closed the file
            return
        m.loop_queued, own_queued = (queued - self._queued[0]) / 1e9, (own - self._queued[1]) / 1e9
        m.loop_runs, self._runs, self._queued = runs - self._runs, runs, (queued, own)
        # That this thread waited for a processor says nothing of the loop's, which may have slept.
        m.stopped = max(0.0, m.stopped - own_queued)

    def close(self) -> None:
        """Give the files back, unless a daemon has closed them: the numbers may be others' now."""
        for file, stat in self._opened.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(stat, os.fstat(file)):
                    os.close(file)
