"""Run a scenario under load and probe, on a loop of its own, and keep what was seen."""

import contextlib
import inspect
import math
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from numbers import Real
from time import perf_counter, sleep
from weakref import WeakSet

from labkit.display import Progress
from labkit.errors import LabError, Stopped
from labkit.measure.run import Run
from labkit.measure.work import Scenario, Work, refuse_patched_asyncio, stands_at
from labkit.probe import Frame, thread_cpu, users_frame

_outlived = WeakSet[threading.Thread]()  # ran a scenario or began in it, and were alive at its end

_BARS, _BAR, _HEIGHTS = 20, 0.1, "▁▂▃▄▅▆▇█"  # how many, seconds each, how high

_limit: ContextVar[tuple[float, list[Run]]] = ContextVar("labkit_limit")


class TooLong(LabError):  # noqa: N818 (it says what happened)
    """A scenario was still running when its time was up, and has been stopped."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[list[Run]]:
    """End each scenario that is measured inside after so long, by TooLong; yields their runs."""
    runs: list[Run] = []
    token = _limit.set((seconds, runs))
    try:
        yield runs
    finally:
        _limit.reset(token)


def measure(scenario: Scenario, *, name: str | None = None, threshold_ms: float = 50.0) -> Run:
    """Run a scenario on an event loop of its own, and watch it.

    The loop lives in a thread, so that a frozen scenario does not freeze the notebook and Jupyter
    is not measured. The stop button cancels the scenario, lets it close its connections, and comes
    back as KeyboardInterrupt within two seconds. Meanwhile a line shows the loop's lag of the last
    two seconds: a full bar (█) is a stall.

    Args:
        scenario: An `async def scenario(load)` that says what it offers and awaits `load.run`.
        name: What to call the run; the scenario's name if not given.
        threshold_ms: What counts as a stall, in milliseconds.

    Raises:
        LabError: The scenario cannot be measured, or it raised: the text says which and where.
    """
    if not inspect.iscoroutinefunction(scenario):
        raise LabError(
            f"measure() was given {getattr(scenario, '__name__', type(scenario).__name__)!r}, "
            f"which is no coroutine function. Expected `async def scenario(load): ...`, in which "
            f"load.offer(...) says what is offered, and which awaits load.run(seconds=4)."
        )
    if not isinstance(threshold_ms, Real):
        raise LabError(f"threshold_ms is {threshold_ms!r}. Expected milliseconds, such as 50.")
    refuse_patched_asyncio()
    if where := left_behind():
        raise LabError(
            f"Nothing was measured: an earlier scenario still runs, at {where}, and would slow "
            f"down this one. Wait until it has ended, or restart the kernel."
        )
    name = name or getattr(scenario, "__name__", "scenario").replace("_", " ")
    work, progress, began = Work(scenario, name, threshold_ms), Progress(), perf_counter()
    limit, runs = _limit.get((math.inf, []))
    earlier = {*threading.enumerate()}
    try:
        work.start()
        # Not work.join(): in Python 3.11 and 3.12 an interrupted join() takes a thread for ended.
        while not work.done.wait(0.1):
            if perf_counter() - began > limit:
                raise TooLong
            if work.load.started:
                elapsed, lag = work.load.elapsed, work.probe.lag_now_ms
                bar = ("█" * round(20 * elapsed / work.load.seconds)).ljust(20, "░")[:20]
                seen = [*work.probe.lag[-_BARS * 5 :], (elapsed, lag)]  # one for 20 ms at most
                strip = lag_strip(seen, elapsed, threshold_ms)
                progress.update(f"{name} {bar} {elapsed:.1f} s, loop lag {lag:.0f} ms {strip}")
    except (KeyboardInterrupt, TooLong) as why:
        left = work.end()
        progress.update(f"{name}: stopped after {perf_counter() - began:.1f} s{left}", last=True)
        if isinstance(why, TooLong):
            raise TooLong(f"had not ended after {limit:g} s{left}") from None
        raise Stopped(f"{name} was stopped{left}.") from None
    finally:
        _outlived.update({*threading.enumerate()} - earlier)
    if work.error is not None:
        progress.update(f"{name}: failed", last=True)
        raise _explained(name, work.error) from None
    result = work.result()
    progress.update(str(result), last=True, data={"run": result.figures()})
    runs.append(result)
    return result


def lag_strip(lag: Sequence[tuple[float, float]], now: float, full_ms: float) -> str:
    """Draw the loop's lag of the last two seconds, a bar for each tenth of a second.

    `lag` has when an iteration ended (s) and how long it took (ms); `full_ms` makes a full bar.
    """
    bars, full = [0] * _BARS, len(_HEIGHTS) - 1
    for at, ms in lag:
        newest, oldest = (int((now - end) / _BAR) for end in (at, at - ms / 1e3))
        for ago in range(max(newest, 0), min(oldest + 1, _BARS)):
            bars[-1 - ago] = max(bars[-1 - ago], min(full, int(full * ms / full_ms)))
    return "".join(_HEIGHTS[height] for height in bars)


def measure_pairs(
    before: Scenario, after: Scenario, *, times: int = 3, threshold_ms: float = 50.0
) -> tuple[list[Run], list[Run]]:
    """Measure two scenarios in turn, several times, so that a busy moment meets both alike.

    Which of them comes first alternates. Returns the runs before and the runs after.

    Raises:
        LabError: As `measure`; or `times` is no whole number from 1 on.
    """
    if not isinstance(times, int) or times < 1:
        raise LabError(f"measure_pairs() was given times={times!r}. Expected 1, or a few.")
    befores, afters = list[Run](), list[Run]()
    for pair in range(times):
        turn = [(before, befores), (after, afters)]
        for scenario, runs in reversed(turn) if pair % 2 else turn:
            runs.append(measure(scenario, threshold_ms=threshold_ms))
    return befores, afters


def left_behind() -> str | None:
    """Where an earlier scenario still runs, or computes in a thread that it left; None if none."""
    until = perf_counter() + 0.5  # it may be on its way out
    # Asked twice: where others have the processors, a thread may get none for a moment.
    while (at_work := _at_work() or _at_work()) and perf_counter() < until:
        pass
    return at_work


def _at_work() -> str | None:
    """Where a thread runs a scenario, or computes. One that waits for work does no harm."""
    left = {thread: thread_cpu(thread.native_id) for thread in _outlived if thread.is_alive()}
    if left:
        sleep(0.02)
    for thread, before in left.items():
        now = thread_cpu(thread.native_id)
        computes = before is not None and now is not None and now - before > 0.002
        if computes or (isinstance(thread, Work) and thread.is_alive()):
            at = stands_at(thread) or "a line that is not known"
            return f"{at}, in the thread {thread.name!r}"
    return None


def _explained(name: str, error: BaseException) -> LabError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LabError):
        return error
    trace = traceback.extract_tb(error.__traceback__)
    where = users_frame(tuple(Frame(f.filename, f.lineno or 0, f.name) for f in trace))
    at = f"\nat {where}" if where else ""
    return LabError(
        f"The scenario {name!r} raised {type(error).__name__}: {error}{at}. Its requests were "
        "cancelled and its loop is closed. Expected: a scenario that returns. A request may fail, "
        "and is counted; a scenario may not."
    )
