"""A scenario on its way through a thread of its own: run it, end it, say where it stands."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

from labkit.errors import LabError
from labkit.measure.load import Load
from labkit.measure.machine import Machine
from labkit.measure.run import Run
from labkit.measure.selector import FineSelector
from labkit.probe import Frame, Probe, users_frame, walk

Scenario = Callable[[Load], Awaitable[object]]


def _fine_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(FineSelector())


class Work:
    """A scenario, and the thread that runs it on a loop of its own."""

    def __init__(self, scenario: Scenario, name: str, threshold_ms: float) -> None:
        self.probe, self.machine = Probe(threshold_ms), Machine()
        self.load = Load(watch=self._watched())
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"labkit: {name}", daemon=True)
        self._scenario, self._name = scenario, name
        self._warnings: list[str] = []
        self._traced = False
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False  # by an exception, where the scenario itself held the loop

    def _run(self) -> None:
        """Run to the end; never raises."""
        log, catcher = logging.getLogger("asyncio"), _Catcher(self._warnings)
        log.addHandler(catcher)
        try:
            with asyncio.Runner(loop_factory=_fine_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            log.removeHandler(catcher)
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

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Watch machine and loop for as long as requests are offered."""
        with self.machine, self.probe:
            self._traced = _is_traced()
            yield
            self._traced |= _is_traced()

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
        task = self._task
        if task is not None and asyncio.current_task(task.get_loop()) is task:
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
        """Let the loop call this; call it here if there is no loop yet, or no longer."""
        try:
            loop = self._task.get_loop() if self._task is not None else None
            (loop.call_soon_threadsafe if loop else lambda call: call())(callback)
        except RuntimeError:  # the loop is closed
            callback()

    def result(self) -> Run:
        """What was seen."""
        load, machine = self.load, self.machine
        machine.pauses = [(start - load.began, end - load.began) for start, end in machine.pauses]
        return Run(
            name=self._name,
            victim=load.victim,
            seconds=load.seconds,
            debug=load.debug,
            traced=self._traced,
            machine=machine,
            stalls=tuple(self.probe.stalls),
            warnings=tuple(self._warnings),
            _requests=load.requests,
            _spans=load.spans,
            _readings=load.readings,
            _lag=self.probe.lag,
        )


def _is_traced() -> bool:
    """Whether a debugger, a profiler or a measurer of coverage looks at this thread's calls."""
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = [monitoring.get_tool(number) for number in range(6)] if monitoring else []
    return bool(sys.gettrace() or sys.getprofile() or any(tools))


class _Catcher(logging.Handler):
    """Keeps what asyncio logs on this thread."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages, self._thread = messages, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        if record.thread == self._thread:
            self._messages.append(record.getMessage())
