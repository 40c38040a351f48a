"""What the log hears of stalls: each new line at once, a known one at most once a minute.

Handlers and callbacks are the user's, and may be slow, fail or hang. They are called on a thread of
their own: never on the loop's, never on the one that looks, and never while a lock is held.
"""

import asyncio
import atexit
import contextlib
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from labkit.probe.frames import Frame
from labkit.probe.meters import perf_counter
from labkit.probe.stall import Stall
from labkit.probe.summary import Rows, count

_AGAIN = 60.0  # s between two records of the same line
_MOST = 1000  # lines known at once: then all are new again; and jobs that wait for a handler
_observed: set[str] = set()  # tracers and the like that this process has been warned of


class Teller:
    """Tells of stalls. Its thread begins with the first, and ends with the probe."""

    def __init__(self, on_stall: Callable[[Stall], object] | None = None) -> None:
        self.on_stall = on_stall
        self._logged: dict[tuple[Frame | None, str], float] = {}  # when, by line and cause
        self._more: Rows = {}  # what has come of them since
        self._queue = queue.SimpleQueue[Callable[[], object]]()
        self._untold = 0  # by then, so many waited for a handler that these were left out
        self._started, self._left = threading.Lock(), threading.Event()

    def tell(self, stall: Stall) -> None:
        """Tell of a stall that is over."""
        self._put(partial(self._over, stall))

    def warn(self, text: str, error: Any = None) -> None:
        """Tell of something else; `error` is what `sys.exc_info()` returns."""
        self._put(partial(self.write, logging.ERROR if error else logging.WARNING, text, error))

    def close(self) -> "Teller":
        """Let the thread end in its own time. Returns one for when the probe is entered again."""
        self._queue.put(self._left.set)
        return Teller(self.on_stall)

    def write(self, level: int, text: str, error: Any = None) -> None:
        """Write one record. Called on the thread, and nowhere else."""
        logging.getLogger("labkit.probe").log(level, "%s", text, exc_info=error)

    def _put(self, job: Callable[[], object]) -> None:
        if self._queue.qsize() < _MOST:
            self._queue.put(job)
        else:
            self._untold += 1
        if self._started.acquire(blocking=False):
            with contextlib.suppress(RuntimeError):  # the interpreter is going down
                thread = threading.Thread(target=self._run, name="labkit-probe-log", daemon=True)
                thread.start()
                atexit.register(self._finish, thread)

    def _finish(self, thread: threading.Thread) -> None:
        self._queue.put(self._left.set)
        thread.join(1.0)  # s; a handler may hang

    def _run(self) -> None:
        while not self._left.is_set():
            try:
                with contextlib.suppress(queue.Empty):
                    self._queue.get(timeout=_AGAIN if self._more else None)()
                if untold := self._untold:
                    self._untold = 0
                    why = "more than 1,000 waited for a handler, or for on_stall, that is too slow"
                    self.write(logging.WARNING, f"{untold:,} records were left out: {why}")
                self._say_how_many_more(leaving=self._left.is_set())
            except Exception:  # a handler's: there is no other place to tell of it
                traceback.print_exc()
        atexit.unregister(self._finish)

    def _say_how_many_more(self, leaving: bool) -> None:
        for key, row in list(self._more.items()):
            if leaving or perf_counter() - self._logged[key] >= _AGAIN:
                self._logged[key] = perf_counter()
                del self._more[key]
                seconds = row["total_ms"] / 1e3
                where = f", {row['at']} {key[0]}" if key[0] else ""
                more = f"+ {row['count']} more, {seconds:.1f} s in all: {row['cause']}{where}"
                self.write(logging.INFO, more)

    def _over(self, stall: Stall) -> None:
        try:
            if self.on_stall is not None:
                self.on_stall(stall)
        except BaseException:  # `sys.exit()` would end this thread only
            self.on_stall = None
            self.write(logging.ERROR, "on_stall failed, and is not called again", sys.exc_info())
        key = stall.line, stall.cause
        if key in self._logged:
            count(self._more, stall)
        else:
            if len(self._logged) >= _MOST:
                self._say_how_many_more(leaving=True)
                self._logged.clear()
            known = stall.cause in {cause for _, cause in self._logged}
            page = "" if known else f" (what to do: python -m labkit.probe why {stall.cause})"
            self._logged[key] = perf_counter()
            self.write(logging.INFO, f"{stall}{page}")


def warn_of_observers(teller: Teller, loop: asyncio.AbstractEventLoop) -> None:
    """Say, once a process, that something slows everything down: a tracer, debug mode."""
    monitoring = getattr(sys, "monitoring", None)
    names = [monitoring.get_tool(i) for i in range(6)] if monitoring else []
    found = {f"{name} watches this process" for name in names if name}
    if sys.gettrace() or sys.getprofile():
        found.add("a tracer or profiler runs on the loop's thread")
    if loop.get_debug():
        found.add("asyncio's debug mode is on")
    for text in found - _observed:
        _observed.add(text)
        teller.warn(f"{text}: everything is slower, and a stall may be its doing, not yours")
