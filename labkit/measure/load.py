"""Offer requests to a service at a rate, whether or not it keeps up, and record each one's fate.

The load is open loop: requests start on a schedule that does not wait for earlier ones, and their
latency counts from the *intended* start. A closed loop (ask, wait, ask again) does not ask while
the service is frozen, and hardly records it (Gil Tene, "How NOT to Measure Latency", 2013).
"""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from random import uniform
from time import perf_counter
from typing import NamedTuple

from labkit.errors import LabError

_GAUGE_EVERY = 0.020  # s, in the mean
_DRAIN = 10.0  # s; how long run() waits for the last requests before it cancels them
UNANSWERED = ("unfinished", "CancelledError")  # how the error of a request without an answer begins


@dataclass(slots=True)
class Request:
    """One request. Times are in seconds since the load began; NaN if it never came to that."""

    offer: str  # the name given to `offer`
    intended: float  # when the schedule wanted it to start
    started: float = math.nan
    finished: float = math.nan  # completed or failed
    error: str | None = "unfinished when the run ended"  # why it failed; None if it completed


class Span(NamedTuple):
    """A part of a request: whose (an index, -1 for nobody's), its name, when (s), how long (ms)."""

    request: int
    span: str
    start_s: float
    span_ms: float


Offer = tuple[Callable[[], Awaitable[object]], float, int]  # what makes a request, rate, burst

_current: ContextVar[int] = ContextVar("labkit_request", default=-1)


class Load:
    """What a scenario offers to its service. `labkit.measure` hands one to every scenario."""

    def __init__(self, watch: AbstractContextManager[object] | None = None) -> None:
        self.requests: list[Request] = []
        self.spans: list[Span] = []
        self.readings: list[dict[str, float]] = []  # at_s, and a figure for each gauge
        self.offers: dict[str, Offer] = {}
        self.seconds, self.started = 0.0, False
        self.began = math.nan  # by time.perf_counter
        self.over = False  # whether the load came to its end
        self.broken_off = False  # set by measure(): then no further request begins
        self._watch = watch or nullcontext()  # is entered for as long as requests run
        self._gauges: dict[str, Callable[[], float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._misuse: LabError | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since `run` was called; 0 before. Readable from any thread."""
        return perf_counter() - self.began if self.started else 0.0

    def offer(
        self, name: str, request: Callable[[], Awaitable[object]], *, rate: float, burst: int = 1
    ) -> None:
        """Offer `request()` at a constant rate. The first one offered is the victim in charts.

        Args:
            name: What to call these requests; each offer has a name of its own.
            request: An `async def` without arguments, or a lambda that calls one.
            rate: Arrivals per second, above 0; the first comes after half an interval.
            burst: Requests at each arrival, all at once.

        Raises:
            LabError: One of these cannot be used, or `run` has begun.
        """
        if not (isinstance(rate, int | float) and 0 < rate < math.inf):
            raise LabError(
                f"offer({name!r}) was given rate={rate!r}. Expected requests per second, above 0: "
                f"rate=0.5 is one every two seconds."
            )
        if not (isinstance(burst, int) and burst >= 1):
            raise LabError(f"offer({name!r}) was given burst={burst!r}. Expected 1, 2, 3, ...")
        if not callable(request):
            raise LabError(
                f"offer({name!r}) was given a {type(request).__name__}. Expected a function that "
                f"makes a new request each time: `lambda: lookup(pool)`, not `lookup(pool)`."
            )
        if name in self.offers:
            raise LabError(f"offer({name!r}) was called twice. Give each offer a name of its own.")
        if self.started:
            raise LabError(f"offer({name!r}) came after run(). Offer everything first, then run.")
        self.offers[name] = (request, rate, burst)

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Read a number off the service about every 20 ms, whenever the loop is free.

        Raises:
            LabError: There is such a gauge, or it is called as the column of the times is.
        """
        if name in self._gauges or name == "at_s":
            raise LabError(
                f"gauge({name!r}) cannot be used: the name is taken. Give each gauge a name of its "
                f"own, and none the name at_s (the times')."
            )
        self._gauges[name] = read

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a part of a request: `with load.span("acquire"): ...`.

        What began before `run`, as the opening of a pool does, is no part of one, and is not kept.
        """
        start, request = perf_counter(), _current.get()
        try:
            yield
        finally:
            if start >= self.began:  # never, as long as that is NaN
                took = 1e3 * (perf_counter() - start)
                self.spans.append(Span(request, name, start - self.began, took))

    async def run(self, *, seconds: float) -> None:
        """Offer everything for some seconds, then wait for what is still in flight.

        A request that still waits ten seconds later is cancelled, and is kept as failed.

        Raises:
            LabError: Nothing is offered, it ran before, or a time or a request cannot be used.
        """
        if not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
            raise LabError(f"run() was given seconds={seconds!r}. Expected a time above 0.")
        if self.started:
            raise LabError("run() was called twice. Measure twice instead, and compare the runs.")
        if not self.offers:
            raise LabError(
                "run() was called, but nothing is offered. Expected before it, for example:\n"
                '    load.offer("lookup", lambda: lookup(pool), rate=200)'
            )
        for name, (_, rate, _) in self.offers.items():
            if round(rate * seconds) < 1:
                raise LabError(
                    f"offer({name!r}) at rate={rate:g} brings no request in {seconds:g} seconds. "
                    f"Raise the rate, or the time."
                )
        self.seconds = seconds
        with self._watch:
            self.began, self.started = perf_counter(), True
            schedules = [asyncio.create_task(self._keep_offering(*o)) for o in self.offers.items()]
            reading = asyncio.create_task(self._keep_reading())
            try:
                await asyncio.gather(*schedules)
                if self._misuse:
                    raise self._misuse
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=_DRAIN)
                self.over = True
            finally:
                left = [task for task in (*schedules, reading, *self._tasks) if not task.done()]
                for task in left:
                    task.cancel()
                if left:
                    await asyncio.wait(left, timeout=_DRAIN)
            if not reading.cancelled():
                reading.result()  # raises what a gauge raised

    async def _keep_offering(self, name: str, offer: Offer) -> None:
        """Start each request when it is due; all that are overdue, at once."""
        make_request, rate, burst = offer
        for arrival in range(round(rate * self.seconds)):
            intended = (arrival + 0.5) / rate
            # More than once where timers tick coarsely and fire a little early (Windows).
            while (wait := self.began + intended - perf_counter()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            if self._misuse:
                raise self._misuse
            for _ in range(burst):
                index = len(self.requests)
                self.requests.append(Request(name, intended))
                request = self._fulfil(make_request, index)
                task = asyncio.create_task(request, name=f"{name} {index}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _fulfil(self, make_request: Callable[[], Awaitable[object]], index: int) -> None:
        _current.set(index)
        record = self.requests[index]
        record.started = perf_counter() - self.began
        try:
            if self.broken_off:
                raise asyncio.CancelledError
            awaitable = make_request()
            if not inspect.isawaitable(awaitable):
                self._misuse = LabError(
                    f"offer({record.offer!r}) was given a plain function: calling it returned "
                    f"{awaitable!r:.40}, which cannot be awaited. Expected a coroutine function: "
                    f"`async def {record.offer}(): ...`, or a lambda that calls one."
                )
                raise self._misuse
            await awaitable
            record.error = None
        except asyncio.CancelledError:
            late = f"unfinished {_DRAIN:.0f} s after the last request: cancelled"
            record.error = late if self.over else "CancelledError: cancelled"
            raise
        except Exception as error:
            record.error = f"{type(error).__name__}: {error}".removesuffix(": ")
        finally:
            record.finished = perf_counter() - self.began

    async def _keep_reading(self) -> None:
        while self._gauges:
            figures = {name: float(read()) for name, read in self._gauges.items()}
            self.readings.append({"at_s": self.elapsed} | figures)
            # Out of step with the arrivals: else each might find the same moment of a request.
            await asyncio.sleep(_GAUGE_EVERY * uniform(0.5, 1.5))
