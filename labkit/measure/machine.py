"""How late the machine is by itself: no request and no stall is to be blamed for that."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Self

_EVERY = 0.003  # s; how long the watching thread sleeps
PAUSE = 0.020  # s; later than this is a pause
_STARVED = 0.1  # idle share of the processors below which whatever computes has to queue
_LATE_MS = 5.0  # later than this in one wake-up, and a few things may have come in another order
# Milliseconds, and the share of the time in wake-ups later than that: above it, what waits often
# waits for the machine, and what is served one by one makes a queue of it. The notebooks alone, on
# a quiet machine of two processors, made up to 1.3% and 11%.
_LOST = ((_LATE_MS, 0.03), (0.5, 0.15))


@dataclass
class Machine:
    """Watches the machine: `with lab.Machine() as machine: ...`. Each run has one.

    A thread sleeps for 3 ms again and again. If it is woken late, and this process used no CPU
    time meanwhile, then the machine did not let the process run. Lateness during which the
    process did run is its own: another of its threads kept the interpreter. On Linux it also asks
    for how long the thread that entered (the loop's) has queued for a processor meanwhile: who
    computes has to queue more than who sleeps.

    Attributes:
        late_ms: How late it was by the machine's doing, each 3 ms, apart from pauses, sorted.
        pauses: (start, end) of each lateness above 20 ms, by `time.perf_counter`.
        idle: The share of the machine's processors that nobody used meanwhile.
    """

    late_ms: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    idle: float = 1.0

    def __enter__(self) -> Self:
        """Begin to watch."""
        import psutil  # here, so that a service that takes the probe home need not have it

        psutil.cpu_times_percent()  # counts from here on
        self._watching, loops_thread = True, threading.get_native_id()
        self._thread = threading.Thread(
            target=self._watch, args=(loops_thread,), name="labkit-machine", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        import psutil

        self._watching = False
        self._thread.join()
        self.late_ms.sort()
        self.idle = psutil.cpu_times_percent().idle / 100

    def _watch(self, loops_thread: int) -> None:
        asked, cpu, queue = perf_counter(), process_time(), _queued(loops_thread)
        while self._watching:
            sleep(_EVERY)  # finer on Windows than a wait for a lock
            now, used, queued = perf_counter(), process_time(), _queued(loops_thread)
            # CPU time beyond the 3 ms was surely used while this thread was late.
            late = now - asked - _EVERY - max(0.0, used - cpu - _EVERY)
            late = max(0.0, late, queued - queue)
            if late > PAUSE:
                self.pauses.append((now - late, now))
            else:
                self.late_ms.append(1e3 * late)
            asked, cpu, queue = perf_counter(), used, queued

    def late(self, share: float) -> float:
        """How late the machine was at this quantile of all wake-ups (0 to 1), in milliseconds."""
        return self.late_ms[round(share * (len(self.late_ms) - 1))] if self.late_ms else 0.0

    @property
    def starved(self) -> bool:
        """Whether whoever computed had to queue for a processor, and often."""
        watched = sum(self.late_ms) + 1e3 * _EVERY * len(self.late_ms)
        lost = any(
            sum(late for late in self.late_ms if late > least) > share * watched
            for least, share in _LOST
        )
        return self.idle < _STARVED or lost

    @property
    def trouble(self) -> str:
        """Why what was seen meanwhile may be the machine's doing, in words; "" if it cannot be."""
        if self.pauses:
            longest = 1e3 * max(end - start for start, end in self.pauses)
            return f"the machine paused, for up to {longest:.0f} ms"
        if self.starved:
            busy = self.idle < _STARVED
            return f"the machine was {'busy' if busy else 'late again and again'}"
        if self.late(1) > _LATE_MS:
            return f"the machine was up to {self.late(1):.0f} ms late"
        return ""


def _queued(thread: int) -> float:
    """For how long (s) a thread of this process has queued for a processor so far."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:  # not Linux: then the sleeping thread alone is asked
        return 0.0
