"""A scenario on its way through a thread of its own: run it, end it, say where it stands."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.measure.load import FineSelector, Load, Request, Span
from labkit.measure.machine import Machine
from labkit.measure.run import DEBUG, Run
from labkit.probe import Frame, Probe, users_frame, walk

if TYPE_CHECKING:
    import pandas as pd

Scenario = Callable[[Load], Awaitable[object]]

# A run shows what was logged. Without a handler, logging would print it in the cell as well.
_SILENT = logging.NullHandler()
logging.getLogger("labkit.probe").addHandler(_SILENT)


def table_of(requests: list[Request], until: float = math.nan) -> pd.DataFrame:
    """The requests as in `Run.requests`; one that never ended has waited until then (s)."""
    import pandas as pd

    rows = [(r.offer, r.intended, r.started, r.error, r.finished) for r in requests]
    table = pd.DataFrame(rows, columns=["offer", "intended_s", "started_s", "error", "finished"])
    table["finished"] = table.finished.fillna(until)
    table["latency_ms"] = 1e3 * (table.finished - table.intended_s)
    table["service_ms"] = 1e3 * (table.finished - table.started_s)
    return table.drop(columns="finished")


class Work:
    """A scenario, and the thread that runs it on a loop of its own."""

    def __init__(self, scenario: Scenario, name: str, threshold_ms: float) -> None:
        self.probe, self.machine, self._threshold_ms = Probe(threshold_ms), Machine(), threshold_ms
        self.load = Load(watch=self._watched())
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"labkit: {name}", daemon=True)
        self._scenario, self._name = scenario, name
        self._loop = asyncio.SelectorEventLoop(FineSelector())
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False  # by an exception, where the scenario itself held the loop
        self._warnings: list[str] = []
        self._invalid = ""

    def _run(self) -> None:
        """Run to the end; never raises."""
        log = logging.getLogger("asyncio")
        log.addFilter(self._keep_warning)
        log.addHandler(_SILENT)
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            log.removeFilter(self._keep_warning)
            log.removeHandler(_SILENT)
            self.done.set()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        if self.load.broken_off:
            return
        await self._scenario(self.load)
        if not self.load.started:
            raise LabError(
                f"The scenario {self._name!r} ended before it ran its load. Expected in it:\n"
                f"    await load.run(seconds=4)"
            )
        if not self.load.over:
            raise LabError(
                f"The scenario {self._name!r} ended before its load did: something cut "
                f"`await load.run(seconds={self.load.seconds:g})` short, a timeout or a task that "
                f"was not awaited. Expected: a scenario that waits until load.run() returns."
            )

    def _keep_warning(self, record: logging.LogRecord) -> bool:
        """Keep what asyncio logs on the scenario's thread, and let it pass."""
        if record.thread == self.thread.ident and record.levelno >= logging.WARNING:
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
        monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
        tools = [monitoring.get_tool(number) for number in range(6)] if monitoring else []
        if self._loop.get_debug():
            return DEBUG
        traced = sys.gettrace() or sys.getprofile() or any(tools)
        return "a tracer or a profiler was on" if traced else ""

    def end(self) -> str:
        """Cancel the scenario, and break off what holds its loop; takes 1.5 s at most.

        Returns:
            In words, where the loop was held, and what could not be ended; or "".
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
                held = self.stands_at()
                self._break_off(turned)
        if turned.is_set():
            return (
                "; its clean-up still waits, for a thread that it started or a connection that "
                "was not given back. Restart the kernel if that does not end"
            )
        return f"; its loop is still held at {held}"

    def stands_at(self) -> Frame | None:
        """Which line of the user's the thread is at."""
        return users_frame(walk(sys._current_frames().get(self.thread.ident or 0)))

    def _break_off(self, turned: threading.Event) -> None:
        """Raise CancelledError in what holds the loop: Python code ends there, at once.

        What waits in C, as `time.sleep` does, ends when that call returns.
        """
        if self._task is not None and asyncio.current_task(self._loop) is self._task:
            self._cancelled = True
        raise_in, ident = ctypes.pythonapi.PyThreadState_SetAsyncExc, self.thread.ident or 0
        raise_in(ctypes.c_ulong(ident), ctypes.py_object(asyncio.CancelledError))
        if turned.is_set():  # the loop was only late: take it back
            raise_in(ctypes.c_ulong(ident), None)

    def _cancel(self) -> None:
        """Cancel the scenario, but not a second time: that would break off its clean-up."""
        if self._task is not None and not self._cancelled:
            self._task.cancel()

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
            name=self._name,
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
