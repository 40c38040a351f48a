"""A scenario on its way through a thread of its own: run it, end it, say where it stands."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.measure.load import Load, Request, Span
from labkit.measure.machine import Machine
from labkit.measure.run import DEBUG, Run
from labkit.measure.selector import FineSelector
from labkit.probe import Frame, Probe, users_frame, walk

if TYPE_CHECKING:
    import pandas as pd

Scenario = Callable[[Load], Awaitable[object]]

# A run shows what was logged. Without a handler, logging would print it in the cell as well.
_SILENT = logging.NullHandler()
logging.getLogger("labkit.probe").addHandler(_SILENT)
# Whose warnings are kept: the loop's, and those of a pool that cannot reach its server.
_LOGS = [logging.getLogger(name) for name in ("asyncio", "asyncpg.pool")]


def refuse_patched_asyncio() -> None:
    """Raise a LabError if something (nest_asyncio, as a rule) has replaced the loop's engine."""
    engine = asyncio.SelectorEventLoop._run_once  # type: ignore[attr-defined]
    by = "nest_asyncio" if hasattr(asyncio, "_nest_patched") else engine.__module__
    if by != asyncio.base_events.__name__:
        raise LabError(
            f"This process runs on an event loop patched by {by}: asyncio's slow-callback warnings "
            f"are gone, and every task is slower: nothing measured here would hold for your "
            f"service. Expected: asyncio as Python ships it. Remove nest_asyncio.apply() and "
            f"restart the kernel; measure() needs no patch to run in a notebook."
        )


def table_of(requests: list[Request], until: float = math.nan) -> pd.DataFrame:
    """The requests as in `Run.requests`; one that never ended has waited until then (s)."""
    import pandas as pd

    rows = [(r.offer, r.intended, r.started, r.error, r.finished) for r in requests]
    table = pd.DataFrame(rows, columns=["offer", "intended_s", "started_s", "error", "finished"])
    table["finished"] = table.finished.fillna(until)
    table["latency_ms"] = 1e3 * (table.finished - table.intended_s)
    table["service_ms"] = 1e3 * (table.finished - table.started_s)
    return table.drop(columns="finished")


def stands_at(thread: threading.Thread) -> Frame | None:
    """Which line of the user's a thread is at."""
    return users_frame(walk(sys._current_frames().get(thread.ident or 0)))


class Work(threading.Thread):
    """A thread that runs a scenario on a loop of its own."""

    def __init__(self, scenario: Scenario, name: str, threshold_ms: float) -> None:
        super().__init__(name=f"labkit: {name}", daemon=True)
        self.probe, self.machine = Probe(threshold_ms), Machine()
        self.load = Load(watch=self._watched())
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._scenario, self._called, self._threshold_ms = scenario, name, threshold_ms
        self._loop = asyncio.SelectorEventLoop(FineSelector())
        self._main_task: asyncio.Task[None] | None = None
        self._cancelled = False  # by an exception, where the scenario itself held the loop
        self._warnings: list[str] = []
        self._invalid = ""

    def run(self) -> None:
        """Run to the end; never raises."""
        for log in _LOGS:
            log.addFilter(self._keep_warning)
            log.addHandler(_SILENT)
        try:
            # The notebook's own hundred thousands of objects are not the service's garbage: out of
            # the way. Here, as on the main thread a finalizer would swallow a KeyboardInterrupt.
            gc.collect()
            gc.freeze()
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            gc.unfreeze()
            for log in _LOGS:
                log.removeFilter(self._keep_warning)
                log.removeHandler(_SILENT)
            self.done.set()

    async def _main(self) -> None:
        self._main_task = asyncio.current_task()
        if self.load.broken_off:
            return
        await self._scenario(self.load)
        if not self.load.over:
            its_load = "its load did" if self.load.started else "it ran its load"
            raise LabError(
                f"The scenario {self._called!r} ended before {its_load}. Expected in it:\n"
                f"    await load.run(seconds={self.load.seconds or 4:g})\n"
                f"and nothing that cuts this short, as a timeout does, or a task that is not "
                f"awaited."
            )

    def _keep_warning(self, record: logging.LogRecord) -> bool:
        """Keep what is logged on the scenario's thread, and let it pass."""
        if record.thread == self.ident and record.levelno >= logging.WARNING:
            self._warnings.append(record.getMessage())
        return True

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Watch machine and loop for as long as requests are offered."""
        with self.machine, self.probe:
            self._invalid = self._why_invalid()
            yield
            self._invalid = self._invalid or self._why_invalid()

    def _why_invalid(self) -> str:
        """What makes the loop's thread slower than the service's, in words; "" if nothing does."""
        if self._loop.get_debug():
            return DEBUG
        traced = sys.gettrace() or sys.getprofile()
        if sys.version_info >= (3, 12):
            traced = traced or any(map(sys.monitoring.get_tool, range(6)))
        return "a tracer or a profiler was on" if traced else ""

    def end(self) -> str:
        """Cancel the scenario, and break off what holds its loop; takes 1.5 s at most.

        Returns, in words, where the loop was held, and what could not be ended; or "".
        """
        self.load.broken_off = True
        self._ask(self._cancel)
        held, until = None, perf_counter() + 1.4
        while perf_counter() < until:
            turned = threading.Event()
            self._ask(turned.set)
            if self.done.wait(0.05 if held else 0.35):  # a crowd may hold the loop, one by one
                return f"; its loop was held at {held}" if held else ""
            if not turned.is_set():
                held = stands_at(self)
                self._break_off(turned)
        if turned.is_set():
            return (
                "; its clean-up still waits, for a thread that it started or a connection that "
                "was not given back. Restart the kernel if that does not end"
            )
        return f"; its loop is still held at {held}"

    def _break_off(self, turned: threading.Event) -> None:
        """Raise CancelledError in what holds the loop: Python code ends there, at once.

        What waits in C, as `time.sleep` does, ends when that call returns.
        """
        if self._main_task is not None and asyncio.current_task(self._loop) is self._main_task:
            self._cancelled = True
        raise_in, ident = ctypes.pythonapi.PyThreadState_SetAsyncExc, self.ident or 0
        raise_in(ctypes.c_ulong(ident), ctypes.py_object(asyncio.CancelledError))
        if turned.is_set():  # the loop was only late: take it back
            raise_in(ctypes.c_ulong(ident), None)

    def _cancel(self) -> None:
        """Cancel the scenario, but not a second time: that would break off its clean-up."""
        if self._main_task is not None and not self._cancelled:
            self._main_task.cancel()

    def _ask(self, callback: Callable[[], object]) -> None:
        """Let the loop call this; call it here if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            callback()

    def result(self) -> Run:
        """What was seen."""
        import pandas as pd

        load, machine = self.load, self.machine
        machine.pauses = [(start - load.began, end - load.began) for start, end in machine.pauses]
        return Run(
            name=self._called,
            offers=tuple(load.offers),
            seconds=load.seconds,
            invalid=self._invalid,
            stalls=tuple(self.probe.stalls),
            warnings=tuple(self._warnings),
            requests=table_of(load.requests, load.elapsed),
            spans=pd.DataFrame(load.spans, columns=Span._fields),
            gauges=pd.DataFrame(load.readings or {"at_s": []}).set_index("at_s"),
            lag=pd.DataFrame(self.probe.lag, columns=["at_s", "lag_ms"]),
            machine=machine,
            threshold_ms=self._threshold_ms,
        )
