"""What the log hears of stalls: each new line at once, a known one at most once a minute.

Handlers and callbacks are the user's, and may be slow, fail or hang. They are called on a thread of
their own: never on the loop's, never on the one that looks, and never while a lock is held.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from labkit.probe.frames import Frame
from labkit.probe.stall import Stall

log = logging.getLogger("labkit.probe")

_AGAIN = 60.0  # s between two records of the same line
_LINES = 1000  # known at once; then all of them are new again
_observed: set[str] = set()  # tracers and the like that this process has been told of


@dataclass
class _Known:
    """A line that was told of: when, and what has come since."""

    told_at: float
    more: int = 0
    ms: float = 0.0


class Teller:
    """Tells of stalls. Its thread begins with the first, and ends with the probe."""

    def __init__(self, on_stall: Callable[[Stall], object] | None = None) -> None:
        self.on_stall = on_stall
        self._queue = queue.SimpleQueue[Stall | tuple[int, str, Any] | None]()
        self._thread: threading.Thread | None = None
        self._known: dict[tuple[Frame | None, str], _Known] = {}

    def tell(self, stall: Stall) -> None:
        """Tell of a stall that is over."""
        self._put(stall)

    def warn(self, text: str, error: Any = None) -> None:
        """Tell of something else; `error` is what `sys.exc_info()` returns."""
        self._put((logging.ERROR if error else logging.WARNING, text, error))

    def close(self) -> None:
        """Let the thread end when it has told what there is. Does not wait for it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None

    def write(self, level: int, text: str, error: Any = None) -> None:
        """Write one record."""
        log.log(level, "%s", text, exc_info=error)

    def _put(self, item: Stall | tuple[int, str, Any]) -> None:
        self._queue.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="labkit-probe-log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is going down
                return
            atexit.register(self._thread.join, 1.0)  # at the end, wait for it so long (s)

    def _run(self) -> None:
        leaving = False
        while not leaving:
            waits = any(known.more for known in self._known.values())
            try:
                item = self._queue.get(timeout=_AGAIN if waits else None)
                if isinstance(item, Stall):
                    self._over(item)
                elif item is not None:
                    self.write(*item)
                leaving = item is None
            except queue.Empty:
                pass
            except Exception:
                self.write(logging.ERROR, "the probe could not tell of a stall", sys.exc_info())
            for (frame, cause), known in self._known.items():
                if known.more and (leaving or monotonic() - known.told_at >= _AGAIN):
                    more = f"+ {known.more} more, {known.ms / 1e3:.1f} s in all"
                    self.write(logging.INFO, f"{more}: {cause}, at {frame}")
                    known.told_at, known.more, known.ms = monotonic(), 0, 0.0
        atexit.unregister(threading.current_thread().join)

    def _over(self, stall: Stall) -> None:
        if self.on_stall is not None:
            try:
                self.on_stall(stall)
            except Exception:
                self.on_stall = None
                text = "on_stall failed, and is not called again"
                self.write(logging.ERROR, text, sys.exc_info())
        if known := self._known.get((stall.frame, stall.cause)):
            known.more, known.ms = known.more + 1, known.ms + stall.duration_ms
            return
        if len(self._known) >= _LINES:
            self._known.clear()
        first = stall.cause not in {cause for _, cause in self._known}
        page = f" (what to do: python -m labkit.probe why {stall.cause})" if first else ""
        self._known[stall.frame, stall.cause] = _Known(monotonic())
        self.write(logging.INFO, f"{stall}{page}")


class Silent(Teller):
    """Tells nobody."""

    def _put(self, item: Stall | tuple[int, str, Any]) -> None:
        pass


def warn_of_observers(teller: Teller, loop: asyncio.AbstractEventLoop) -> None:
    """Say, once a process, that something slows everything down: a tracer, debug mode."""
    monitoring = getattr(sys, "monitoring", None)
    names = [monitoring.get_tool(i) for i in range(6)] if monitoring else []
    found = [f"{name} watches this process" for name in names if name]
    if sys.gettrace() or sys.getprofile():
        found.append("a tracer or profiler runs on the loop's thread")
    if loop.get_debug():
        found.append("asyncio's debug mode is on")
    for text in found:
        if text not in _observed:
            _observed.add(text)
            teller.warn(f"{text}: everything is slower, and a stall may be its doing, not yours")
