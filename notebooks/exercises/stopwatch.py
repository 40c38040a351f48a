"""Exercise of notebook 00: a stopwatch that a frozen loop cannot fool. This file is to be read.

An answer is judged by when it asks, on a loop that stands still for 120 ms of every second, and by
the times it reports beside those that the same requests really took.
"""

import asyncio
import contextlib
import itertools
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray

import labkit as lab
from labkit.exercises import NotYet, answers_frame, by_the_clock, database

HINTS = [
    "Who decides when the next request starts: the answer to the last one, or the clock? And who "
    "decides when a request's time begins to run: the loop, when it comes to it, or your schedule?",
    "Request number `k` is due at `began + k / rate`, whatever became of those before it. Sleep "
    "until then, start it as a task, and do not wait for it. Each task has to know when it is due.",
    "`due = began + k / rate`, `await asyncio.sleep(due - perf_counter())`, "
    "`tasks.create_task(one(due))` in an `asyncio.TaskGroup`; and `one(due)` awaits `ask()` and "
    "appends `1e3 * (perf_counter() - due)`.",
]

SOLUTION = """
async def stopwatch(ask, rate, seconds):
    times = []

    async def one(due):
        await ask()
        times.append(1e3 * (perf_counter() - due))

    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for k in range(round(rate * seconds)):
            due = began + k / rate
            await asyncio.sleep(due - perf_counter())
            tasks.create_task(one(due))
    return times
"""

WHY = """users arrive by the clock, and so does this stopwatch. What the loop could not start in
time is started late, and its time has been running since it was due: nothing is left out.
When not to use it: for a client that waits for each answer before it asks again. And on a service
of yours, give it an end, as requests may pile up, and count what fails: here that ends it."""

Ask = Callable[[], Awaitable[object]]
Answer = Callable[[Ask, float, float], Awaitable[object]]
Times = NDArray[np.float64]  # ms

RATE, SECONDS = 100, 3
DUE = RATE * SECONDS
FROZEN = 0.12  # s, once a second
TAKES = 0.02  # s; longer than the interval: who waits for it falls behind
QUERY = "SELECT pg_sleep($1)"
STEADY = 0.02  # s; who is no further from the usual beginning keeps the schedule
SLOW = {90: 0.7, 190: 1.0}  # s; two requests that take long, and too few for the p99
LATE = 60  # ms; half a freeze
# What is compared, and which quantile it is.
FIGURES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest but one": 1 - 1 / DUE, "longest": 1}
UNEVEN = 8  # ms; half of five at once are 10 ms or more off


def check(answer: Answer) -> lab.Verdict:
    """Let the answer time requests on a loop that freezes; time the same requests here."""
    dsn = database()
    asked: list[tuple[float, float]] = []  # start and end of each
    reported: list[Any] = []
    answered: list[int] = []  # requests that had ended when the answer returned
    turns = itertools.count()
    inside = at_once = broken_off = 0

    async def your_stopwatch(load: lab.Load) -> None:
        async with asyncpg.create_pool(dsn, min_size=30, max_size=30) as pool:

            async def ask() -> None:
                nonlocal inside, at_once, broken_off
                began, takes = perf_counter(), SLOW.get(next(turns), TAKES)
                inside += 1
                at_once = max(at_once, inside)
                try:
                    await pool.fetchval(QUERY, takes)
                except asyncio.CancelledError:
                    broken_off += perf_counter() < began + takes  # else, the machine may be late
                    raise
                finally:
                    inside -= 1
                    asked.append((began, perf_counter()))

            async def report(times: Awaitable[object]) -> None:
                try:
                    reported.append(await times)
                except NotYet as endless:
                    reported.append(endless)  # when it has asked says more
                except Exception as error:
                    while isinstance(error, ExceptionGroup):
                        error = error.exceptions[0]
                    line = answers_frame(traceback.extract_tb(error.__traceback__))
                    at = f"\nat {line}" if line else ""
                    said = f"your stopwatch raised {type(error).__name__}: {error}{at}"
                    raise lab.LabError(said) from None
                answered.append(len(asked))

            async def freeze() -> None:
                time.sleep(FROZEN)

            load.offer("user", lambda: pool.fetchval(QUERY, TAKES), rate=RATE)
            load.offer("freeze", freeze, rate=1)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(report(answer(ask, RATE, SECONDS)))
                await load.run(seconds=SECONDS)

    run = lab.measure(your_stopwatch)
    if not reported:
        raise lab.LabError("your stopwatch raised CancelledError: something of it was cancelled.")
    return _judge(run, sorted(asked), at_once, answered[0], reported[0], broken_off)


def chart(run: lab.Run) -> None:
    """What the users of the same service felt."""
    lab.timeline(run, title=f"What users felt meanwhile: p99 {run.latency().p99:.0f} ms")


def _judge(
    run: lab.Run,
    asked: list[tuple[float, float]],
    at_once: int,
    answered: int,
    reported: Any,
    broken_off: int,
) -> lab.Verdict:
    if not asked and isinstance(reported, NotYet):
        raise reported
    if not asked:
        raise NotYet(f"your stopwatch asked 0 times, where {DUE} were due: it never calls `ask`.")
    if at_once == 1:
        raise NotYet(
            f"in {SECONDS} s {DUE} requests were due, and your stopwatch made "
            f"{sum(start < asked[0][0] + SECONDS for start, _ in asked)}: it asks one after the "
            f"other. While it waits for an answer it does not ask. Users do not wait for each "
            f"other."
        )
    if isinstance(reported, NotYet):
        raise reported
    starts, ends = (np.array(times) for times in zip(*asked, strict=True))
    # The schedule is the one that most requests keep: the first may itself have met a freeze.
    begins = starts - np.arange(len(asked)) / RATE
    began = np.median(begins)
    if np.mean(np.abs(begins - began) < STEADY) < 0.6:
        began = starts[0]
    due = began + np.arange(len(asked)) / RATE
    late = 1e3 * (starts - due)
    if late.min() < -LATE:
        raise by_the_clock(
            run,
            -late.min(),  # were only the first one so late, all others would look early
            f"your stopwatch asked up to {-late.min():.0f} ms too early, and {at_once} were on "
            f"their way at once: {RATE} a second are one every {1e3 / RATE:.0f} ms.",
            1,
        )
    if len(asked) != DUE:
        raise NotYet(
            f"your stopwatch asked {len(asked)} times. {RATE} per second for {SECONDS} s are {DUE}."
        )
    behind = float(np.median(late[-DUE // 3 :]))
    if behind > LATE:
        raise by_the_clock(
            run,
            behind,
            f"in the last second your stopwatch asked {behind:.0f} ms too late (median): each "
            f"freeze has moved everything after it. A schedule counts from its beginning, not from "
            f"the last request.",
            1,  # a queue has no end while the processors are too few
        )
    if late.max() > LATE and at_once < 0.9 * FROZEN * RATE:  # it has met a freeze
        # Who needs longer to ask them than they take has the first answers before the last asks.
        raise by_the_clock(
            run,
            1e3 * TAKES,
            f"in each freeze {FROZEN * RATE:.0f} requests came due, and never more than {at_once} "
            f"of yours were on their way at once: the others waited for those. Users do not wait "
            f"for each other.",
            1,
        )
    off = float(np.median(np.abs(late)))
    if off > UNEVEN:
        raise by_the_clock(
            run,
            off,
            f"half of your requests were {off:.0f} ms or more off the schedule. {RATE} a second "
            f"are one every {1e3 / RATE:.0f} ms, and not several at once.",
            1,
        )
    if answered < DUE:  # its tasks may have gone on writing into what it returned
        raise NotYet(
            f"when your stopwatch returned, {answered} of its {DUE} requests had ended: nobody "
            f"knew the times of the others. Wait for every request before you return."
        )
    yours = _times(reported)
    if broken_off:
        raise NotYet(
            f"your stopwatch broke off {broken_off} of its requests before they were answered, so "
            f"it cannot know how long they take. Wait for each, however long it takes."
        )
    return _compare(run, yours, 1e3 * (ends - due), 1e3 * (ends - starts))


def _times(reported: Any) -> Times:
    """What was reported: a number for each request, whatever holds them."""
    expected = f"expected a list of {DUE} times in ms, one a request, and got"
    each, yours = [], np.empty(())
    if not isinstance(reported, Mapping):
        with contextlib.suppress(Exception):  # it is no list, or not of numbers
            each = list(itertools.islice(reported, DUE + 1))  # it may have no end
            yours = np.array(each, dtype=float)
    if yours.ndim != 1:
        raise NotYet(f"{expected} this {type(reported).__name__}: {reported!r:.60}.")
    if len(yours) != DUE:
        raise NotYet(
            f"{expected} {len(yours)} of them: {each!r:.60}. Wait for every request, however long "
            f"it takes, before you return."
        )
    if len(odd := np.flatnonzero(~np.isfinite(yours))):
        raise NotYet(
            f"expected {DUE} finite numbers, and got {DUE - len(odd)}: the first that is none is "
            f"{each[odd[0]]!r:.60}. A percentile needs the time of every request: wait for each, "
            f"however long it takes."
        )
    return yours


def _compare(run: lab.Run, yours: Times, truth: Times, service: Times) -> lab.Verdict:
    says, p99 = (float(np.quantile(times, 0.99)) for times in (yours, truth))
    if abs(1e3 * says - p99) < 0.2 * p99:
        raise NotYet(f"your p99 is {says:.3f}: these are seconds. Expected milliseconds.")
    slow, real, blind = (int((times > LATE).sum()) for times in (yours, truth, service))
    if slow < 0.7 * real and slow <= 1.3 * blind + 2:
        raise NotYet(
            f"you asked on time, but {slow} of your {DUE} times are above {LATE} ms, and {real} "
            f"requests took that long from when they were due: your clock begins when a request "
            f"starts, and in a freeze that is after the waiting."
        )
    for what, q in FIGURES.items():
        mine, right = np.quantile(yours, q), np.quantile(truth, q)
        if abs(mine - right) > max(10, 0.2 * right):
            raise by_the_clock(
                run,
                abs(mine - right),
                f"you asked on time, but your {what} is {mine:.0f} ms, and the same "
                f"requests took {right:.0f} ms from when they were due.",
                1,
            )
    return lab.Verdict(
        "pass",
        f"{DUE} requests asked, all on schedule; your p99 is {says:.0f} ms, and the truth is "
        f"{p99:.0f} ms. You found {slow} above {LATE} ms; from their actual start {blind} would "
        f"be. labkit's own stopwatch, beside yours: {run.latency()}.",
    )
