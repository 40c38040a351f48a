"""Run a scenario under load and probe, on a loop of its own, and keep what was seen."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import inspect
import logging
import math
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from time import perf_counter

from labkit.display import Progress
from labkit.errors import LabError, Stopped
from labkit.measure.load import FineSelector, Load
from labkit.measure.machine import Machine
from labkit.measure.run import Run
from labkit.probe import Frame, Probe, users_frame, walk

Scenario = Callable[[Load], Awaitable[object]]

_limit: ContextVar[tuple[float, list[Run]]] = ContextVar("labkit_limit", default=(math.inf, []))


class TooLong(LabError):  # noqa: N818 (it says what happened)
    """A scenario was still running when its time was up, and has been stopped."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[list[Run]]:
    """End each scenario that is measured inside the block after some seconds, by TooLong.

    Yields:
        A list to which each run is added.
    """
    runs: list[Run] = []
    token = _limit.set((seconds, runs))
    try:
        yield runs
    finally:
        _limit.reset(token)


def measure(scenario: Scenario, *, name: str | None = None, threshold_ms: float = 50.0) -> Run:
    """Run a scenario on an event loop of its own, and watch it.

    The loop lives in a thread, so that a frozen scenario does not freeze the notebook and Jupyter
    is not measured. The stop button cancels the scenario and lets it close its connections.

    Args:
        scenario: An `async def scenario(load)` that says what it offers and awaits `load.run`.
        name: What to call the run; the scenario's name if not given.
        threshold_ms: What counts as a stall, in milliseconds.

    Raises:
        LabError: The scenario cannot be measured, or it raised: the text says which and where.
        KeyboardInterrupt: The stop button, within two seconds.
    """
    if not inspect.iscoroutinefunction(scenario):
        raise LabError(
            f"measure() was given {getattr(scenario, '__name__', type(scenario).__name__)!r}, "
            f"which is no coroutine function. Expected:\n"
            f"    async def scenario(load):\n"
            f'        load.offer("lookup", lambda: lookup(pool), rate=200)\n'
            f"        await load.run(seconds=4)"
        )
    refuse_patched_asyncio()
    name = name or getattr(scenario, "__name__", "scenario").replace("_", " ")
    work = _Work(scenario, name, threshold_ms)
    thread = threading.Thread(target=work.run, name=f"labkit: {name}", daemon=True)
    progress = Progress()
    limit, runs = _limit.get()
    began = perf_counter()
    # The notebook's own hundred thousands of objects are not the service's garbage: out of the way.
    gc.collect()
    gc.freeze()
    try:
        thread.start()
        # Not thread.join(): in Python 3.11 and 3.12 an interrupted join() takes a thread for ended.
        while not work.done.wait(0.1):
            if perf_counter() - began > limit:
                raise TooLong
            if work.load.ran:
                lag = work.probe.lag_now_ms
                done = min(1.0, work.load.elapsed / work.load.seconds)
                bar = "█" * round(20 * done) + "░" * (20 - round(20 * done))
                progress.update(f"{name} {bar} {work.load.elapsed:.1f} s, loop lag {lag:.0f} ms")
    except (KeyboardInterrupt, TooLong) as why:
        _stopped.append((work, thread))
        held = work.end(thread)
        progress.close(f"{name}: stopped after {perf_counter() - began:.1f} s{held}")
        if isinstance(why, TooLong):
            raise TooLong(f"had not ended after {limit:g} s{held}") from None
        raise Stopped(f"{name} was stopped{held}.") from None
    finally:
        gc.unfreeze()
    if work.error is not None:
        progress.close(f"{name}: failed")
        raise _explained(name, work.error) from None
    result = work.result()
    progress.close(str(result), {"run": result.figures()})
    if limit < math.inf:
        runs.append(result)
    return result


def measure_pairs(
    before: Scenario, after: Scenario, *, times: int = 3, threshold_ms: float = 50.0
) -> tuple[list[Run], list[Run]]:
    """Measure two scenarios in turn, several times, so that a machine's mood meets both alike.

    Which of them comes first alternates. Returns the runs before and the runs after.
    """
    befores: list[Run] = []
    afters: list[Run] = []
    for pair in range(times):
        turn = [(before, befores), (after, afters)]
        for scenario, runs in reversed(turn) if pair % 2 else turn:
            runs.append(measure(scenario, threshold_ms=threshold_ms))
    return befores, afters


def refuse_patched_asyncio() -> None:
    """Raise a LabError if something (nest_asyncio, as a rule) has replaced the loop's engine."""
    engine = asyncio.SelectorEventLoop._run_once  # type: ignore[attr-defined]
    by = "nest_asyncio" if hasattr(asyncio, "_nest_patched") else engine.__module__
    if by != asyncio.base_events.__name__:
        raise LabError(
            f"This process runs on an event loop patched by {by}: asyncio's "
            "slow-callback warnings are gone, and every task is slower. Nothing measured here "
            "would hold for your service. Expected: asyncio as Python ships it. Remove "
            "nest_asyncio.apply() and restart the kernel; measure() needs no patch to run in a "
            "notebook."
        )


def _fine_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(FineSelector())


class _Work:
    """A scenario on its way through a thread."""

    def __init__(self, scenario: Scenario, name: str, threshold_ms: float) -> None:
        self.probe = Probe(threshold_ms)
        self.machine = Machine()
        self.load = Load(watch=self._watched())
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._scenario, self._name = scenario, name
        self._warnings: list[str] = []
        self.traced = False
        self._turned = threading.Event()  # the loop has come to a call that was made from outside
        self._cancelled = False  # the scenario itself is, where it held its loop
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Run to the end, on this thread; never raises."""
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

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """While requests are offered."""
        with self.machine, self.probe:
            self.traced = bool(_traced())
            yield
            self.traced |= _traced()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        if self.load.broken_off:
            return
        await self._scenario(self.load)
        if not self.load.ran:
            raise LabError(
                f"The scenario {self._name!r} ended before it ran its load. Expected in it:\n"
                f"    await load.run(seconds=4)"
            )

    def end(self, thread: threading.Thread) -> str:
        """Cancel the scenario; break off what holds its loop. In 1.5 s; returns what is left."""
        self.load.broken_off = True
        self._call(self._cancel)
        held, ident, until = None, thread.ident or 0, perf_counter() + 1.4
        while perf_counter() < until:
            self._turned.clear()
            self._call(self._turned.set)
            if self.done.wait(0.05 if held else 0.35):  # there may be many that hold it in turn
                return f"; its loop was held at {held}" if held else ""
            if not (self._turned.is_set() or self._closed):
                # Python code that never awaits can be cancelled as well, where it stands. What
                # waits in C, as time.sleep() does, is cancelled when it returns.
                held = _held_at(thread)
                self._cancelled |= self._is_current()
                cancelled = ctypes.py_object(asyncio.CancelledError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), cancelled)
                if self._turned.is_set():  # it was only late: take that back
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)
        if self._turned.is_set():
            return (
                "; its clean-up still waits, for a thread that it started or a connection that "
                "was not given back. Restart the kernel if that does not end"
            )
        return f"; its loop is still held at {held}"

    def _cancel(self) -> None:
        """Cancel the scenario, if it was not where it stood: twice would break off its clean-up."""
        if self._task is not None and not self._cancelled:
            self._task.cancel()

    def _is_current(self) -> bool:
        """Whether the scenario itself holds the loop, and not one of its requests."""
        task = self._task
        return task is not None and asyncio.current_task(task.get_loop()) is task

    @property
    def _closed(self) -> bool:
        """Whether the loop is over: what is left is not to be broken off, or nobody would hear."""
        return self._task is not None and self._task.get_loop().is_closed()

    def _call(self, callback: Callable[[], object]) -> None:
        """Let the loop call this, from any thread; nothing if there is no loop by now."""
        with contextlib.suppress(RuntimeError):
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(callback)

    def result(self) -> Run:
        """What was seen."""
        load, probe, machine = self.load, self.probe, self.machine
        machine.pauses = [(start - load.began, end - load.began) for start, end in machine.pauses]
        return Run(
            name=self._name,
            victim=load.victim,
            seconds=load.seconds,
            debug=load.debug,
            traced=self.traced,
            machine=machine,
            stalls=tuple(probe.stalls),
            warnings=tuple(self._warnings),
            _requests=load.requests,
            _spans=load.spans,
            _readings=load.readings,
            _lag=probe.lag,
        )


def _traced() -> bool:
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


_stopped: list[tuple[_Work, threading.Thread]] = []


def left_behind() -> str | None:
    """Where an earlier scenario, that was stopped, still holds its loop; None if none does."""
    # It may be on its way out.
    _stopped[:] = [(work, thread) for work, thread in _stopped if not work.done.wait(0.5)]
    return f"{_held_at(_stopped[0][1])}" if _stopped else None


def _held_at(thread: threading.Thread) -> Frame | None:
    return users_frame(walk(sys._current_frames().get(thread.ident or 0)))


def _explained(name: str, error: BaseException) -> LabError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LabError):
        return error
    trace = traceback.extract_tb(error.__traceback__)
    where = users_frame(tuple(Frame(f.filename, f.lineno or 0, f.name) for f in trace))
    return LabError(
        f"The scenario {name!r} raised {type(error).__name__}: {error}\n"
        f"at {where}. Its requests were cancelled and its loop is closed. Expected: a scenario "
        f"that returns. A request may fail, and is counted; a scenario may not."
    )
