"""How late the machine is by itself, and what its pauses leave behind: nobody is to be blamed."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any, Self

_EVERY = 0.003  # s; how long the watching thread sleeps
_PAUSE = 0.020  # s; later than this is a pause
STARVED = 0.1  # idle share of the processors below which whatever computes has to queue
_LATE_MS = 5.0  # later than this in one wake-up, and a few things may have come in another order
# Milliseconds, and the share of the time in wake-ups later than that: above it, what waits often
# waits for the machine, and what is served one by one makes a queue of it. The notebooks alone, on
# a quiet machine of two processors, made up to 1.3% and 11%.
_LOST = ((_LATE_MS, 0.03), (0.5, 0.15))
_IN_A_ROW = 10  # requests; fewer do not tell what is usual, nor that it has come back
_FAILED = 1e9  # ms; slower than any answer


@dataclass
class Machine:
    """Watches the machine: `with lab.Machine() as machine: ...`. Each run has one.

    A thread sleeps for 3 ms again and again. If it wakes late, and this process used no CPU time
    meanwhile, then the machine did not let the process run; else another of its threads kept the
    interpreter. On Linux it also asks for how long the thread that entered (the loop's) has queued
    for a processor meanwhile: who computes has to queue more than who sleeps.

    Attributes:
        late_ms: How late it was by the machine's doing, each 3 ms, apart from pauses, sorted.
        pauses: (start, end) of each lateness above 20 ms, by `time.perf_counter`.
        idle: The share of the machine's processors that nobody used meanwhile.
    """

    late_ms: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    idle: float = 1.0

    def __enter__(self) -> Self:
        import psutil  # here, so that a service that takes the probe home need not have it

        self._before, self._watching = psutil.cpu_times(), True
        loops_thread = threading.get_native_id()
        self._thread = threading.Thread(
            target=self._watch, args=(loops_thread,), name="labkit-machine", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watching = False
        self._thread.join()
        self.late_ms.sort()
        self.idle = idle_since(self._before)

    def _watch(self, loops_thread: int) -> None:
        asked, cpu, queue = perf_counter(), process_time(), _queued(loops_thread)
        while self._watching:
            sleep(_EVERY)  # finer on Windows than a wait for a lock
            now, used, queued = perf_counter(), process_time(), _queued(loops_thread)
            # CPU time beyond the 3 ms was surely used while this thread was late.
            late = now - asked - _EVERY - max(0.0, used - cpu - _EVERY)
            late = max(0.0, late, queued - queue)
            if late > _PAUSE:
                self.pauses.append((now - late, now))
            else:
                self.late_ms.append(1e3 * late)
            # From that reading on: it can be stopped at any line of these.
            asked, cpu, queue = now, used, queued

    def late(self, share: float) -> float:
        """How late the machine was at this quantile of all wake-ups (0 to 1), in milliseconds."""
        return self.late_ms[round(share * (len(self.late_ms) - 1))] if self.late_ms else 0.0

    def late_in(self, shares: Any) -> Any:
        """How late it was in these shares of the time (an array, 0 to 1), in ms.

        Unlike a share of the wake-ups: what is late for long is met by more requests.
        """
        import numpy as np

        late = np.array(self.late_ms or [0.0])
        lasts = np.cumsum(late + 1e3 * _EVERY)
        return late[np.searchsorted(lasts, shares * lasts[-1])]

    @property
    def starved(self) -> bool:
        """Whether whoever computed had to queue for a processor, and often."""
        watched = sum(self.late_ms) + 1e3 * _EVERY * len(self.late_ms)
        lost = ((sum(ms for ms in self.late_ms if ms > least), share) for least, share in _LOST)
        return self.idle < STARVED or any(ms > share * watched for ms, share in lost)

    @property
    def trouble(self) -> str:
        """Why what was seen meanwhile may be the machine's doing, in words; "" if it cannot be."""
        if self.pauses:
            longest = 1e3 * max(end - start for start, end in self.pauses)
            return f"the machine paused, for up to {longest:.0f} ms"
        if self.starved:
            return f"the machine was {'busy' if self.idle < STARVED else 'late again and again'}"
        late = self.late(1)
        return f"the machine was up to {late:.0f} ms late" if late > _LATE_MS else ""


def served_as_before(
    requests: Any, victim: str, first: float
) -> tuple[Callable[[float], float], list[str]]:
    """When each offer of `Run.requests` is served again as before the first pause, at `first` (s).

    Of ten requests in a row, the median may be 1.5 times what it was (else all are in a queue), and
    so may the 90th percentile (else a few are). A failure counts as slow. An offer that had fewer
    than ten requests before does not tell; if the victim had, nothing is known.

    Returns:
        A function of the end of a pause (s): from when on (s) all are served so; 0 if no request
        came after it, infinite if they are never. And the offers that do not tell.
    """
    offers, unknown = [], []
    for offer, mine in requests.groupby("offer"):
        came, took = mine.intended_s, mine.latency_ms.where(mine.error.isna(), _FAILED)
        earlier = took[came + mine.latency_ms / 1e3 < first]
        if (known := len(earlier) >= _IN_A_ROW) or offer == victim:
            in_a_row = took.rolling(_IN_A_ROW)
            half, most = (in_a_row.quantile(q) <= 1.5 * earlier.quantile(q) for q in (0.5, 0.9))
            offers.append((came.max(), came.shift(_IN_A_ROW - 1)[half & most & known]))
        else:
            unknown.append(str(offer))

    def again(end: float) -> float:
        waits = (min(well[well >= end], default=math.inf) for last, well in offers if last >= end)
        return max(waits, default=0.0)

    return again, unknown


def idle_since(before: Any) -> float:
    """The share of the processors' time that nobody has used since psutil.cpu_times() gave this."""
    import psutil

    now = psutil.cpu_times()
    spent = sum(now) - sum(before)
    return (now.idle - before.idle) / spent if spent > 0 else 1.0


def _queued(thread: int) -> float:
    """For how long (s) a thread of this process has queued for a processor so far."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:  # not Linux: then the sleeping thread alone is asked
        return 0.0
