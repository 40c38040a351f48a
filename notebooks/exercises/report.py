"""Exercise of notebook 01: a report that does not hold the loop. This file is meant to be read.

An answer is judged by what it returns, and by what it calls on the loop's thread. First it is
called alone, under `sys.setprofile`, which sees each call of a function that is written in C; all
waiting is done by such. So a call that is known to wait is found however short it is, and any other
if it is long; and an order comes in between two calls, which an answer that remembers does not see.
Then it is offered under load, for the picture, and to find what computes for long.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
from exercises.instruments.calls import LONG, Calls
from exercises.instruments.meanwhile import ORDER, another_order, end_all, opened
from legacy import monthly_report

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database

HINTS = [
    "Run `lab.stalls(lab.measure(...))` on a scenario that offers your report four times a second: "
    "which line holds the loop? It may not be the only one.",
    "There are two ways. Either nothing in your function waits without `await` (asyncpg, and "
    "asyncio's own sleep), or the whole legacy function waits on another thread.",
    "In asyncpg's dialect the parameter is `$1`, `pool.fetch` gives a list of records, and "
    "`await asyncio.sleep(0.08)` keeps the pause. Or, in one line: "
    "`return await asyncio.to_thread(...)`, with the notebook's `dsn`.",
]

SOLUTION = """
from legacy import monthly_report


async def monthly_orders(pool, customer):
    newest = "SELECT max(created_at) FROM labkit.orders WHERE customer = $1"
    if await pool.fetchval(newest, customer) is None:
        return {}
    await asyncio.sleep(0.08)
    months = monthly_report.MONTHS.replace("%s", "$1")
    return {row["month"]: row["count"] for row in await pool.fetch(months, customer)}
"""

WHY = """every wait is an `await`, so while this request waits, the loop serves the others.
Another way: `asyncio.to_thread(monthly_report.monthly_orders, dsn, customer)`. It is the right one
if the legacy code must stay, though that opens a connection for each report.
When not to use a thread: for hundreds of requests at once. The default executor has 5 to 32
threads."""

NEWCOMER = 1_000_000 + os.getpid()  # nobody else's: has one order, and then two
MADE_AT = datetime(2031, 5, 15, tzinfo=UTC)
NEWEST = datetime(2031, 6, 15, tzinfo=UTC)  # who asks only for this does not see one come in
CUSTOMERS = (42, 7, NEWCOMER)
STALL_MS = 30.0


def check(answer: Callable[[asyncpg.Pool, int], Awaitable[object]]) -> lab.Verdict:
    """Call the answer alone, and watch its calls; then offer it eight times under 200 lookups."""
    dsn = database()
    expected = {c: monthly_report.monthly_orders(dsn, c) for c in CUSTOMERS}
    returned: list[tuple[int, Any, dict[str, int]]] = []  # customer, what came back, what is right
    calls = Calls()
    waited: list[bool] = []
    left = 0

    async def your_report(load: lab.Load) -> None:
        nonlocal left

        async def report(customer: int) -> None:
            returned.append((customer, await answer(pool, customer), expected[customer]))

        async def each_alone() -> None:
            for customer in CUSTOMERS:
                with calls.watched():
                    waited.append(await _waits_for(report(customer)))

        pool = await asyncpg.create_pool(dsn, min_size=5, max_size=5)
        try:
            async with another_order(dsn, NEWCOMER, NEWEST, order=ORDER - 1000):
                expected[NEWCOMER] = {f"{NEWEST:%Y-%m}": 1}
                await each_alone()
                async with another_order(dsn, NEWCOMER, MADE_AT):
                    expected[NEWCOMER] = {f"{MADE_AT:%Y-%m}": 1} | expected[NEWCOMER]
                    await each_alone()
            expected[NEWCOMER] = {}
            customers = iter(CUSTOMERS * 3)
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: pool.fetchval(lookup), rate=200)
            load.offer("report", lambda: report(next(customers)), rate=8)
            await load.run(seconds=1)
        finally:
            pool.terminate()  # not close(), which waits for what never comes back
            left = end_all(connections)

    with opened() as connections:
        run = lab.measure(your_report, threshold_ms=STALL_MS)
    reports = run.requests[run.requests.offer == "report"]
    if run.failed("report"):
        error = reports.error.dropna().iloc[0]
        raise lab.LabError(f"{run.failed('report')} of {len(reports)} reports: {error}")
    p99 = f"The lookups' p99 was {run.latency().p99:.0f} ms."
    doubt = None
    if blocking := calls.blocking():
        seen = (
            f"these lines of your report keep the loop's thread. However short that is, nobody "
            f"else is served meanwhile:{blocking}\n{p99}"
        )
        doubt = NotYet(seen) if calls.certain else by_the_clock(run, 1e3 * LONG, seen, 1)
        if doubt.outcome == "not yet":
            raise doubt
    if 2 * sum(waited) < len(waited):  # who polls may find now and then that all is there already
        raise NotYet(
            "your report returned without giving the loop back once. So it asks nobody, or it "
            "remembers, and misses an order that has come in, or it waits on the loop's thread."
        )
    for customer, got, right in returned:
        if not isinstance(got, dict):  # a DataFrame compares its elements
            raise NotYet(f"expected a dict as the old report's, {right}, and got {got!r:.200}.")
        if customer == NEWCOMER and len(right) == 2 and got == {max(right): 1}:
            raise NotYet(
                f"an order of customer {customer} had come in since the last call, and the report "
                f"was still {got}: it remembers."
            )
        if got != right:
            raise NotYet(
                f"no call of yours was seen to keep the loop's thread, but for customer {customer} "
                f"the report should be {right} and was {got!r:.200}."
            )
        if list(got) != list(right):
            old, yours = next(it for it in zip(right, got, strict=True) if it[0] != it[1])
            raise NotYet(
                f"for customer {customer} the numbers are right, but not the order. The old report "
                f"has the oldest month first: it has {old} where yours has {yours}."
            )
    # Nothing but the answer can keep this loop. One such stall may be the machine's.
    stalls = sorted(
        (s.own_ms, str(s)) for s in run.stalls if s.thread is None and s.cause != "unknown"
    )
    if len(stalls) > 1 and stalls[-2][0] > STALL_MS:
        seen = (
            f"{len(stalls)} stalls in {len(reports)} reports, the longest: {stalls[-1][1]}. {p99}"
        )
        raise by_the_clock(run, stalls[-2][0], seen, stalls[-2][0] / STALL_MS)
    if doubt:  # on a busy machine, and nothing else was found
        raise doubt
    if 0 < len(returned) <= left:  # not a pool of its own
        raise NotYet(
            f"{len(returned)} reports opened {left} connections that they did not close: in "
            f"time the server has none left. Close what you open, or use `pool`."
        )
    return lab.Verdict(
        "pass",
        f"{len(returned)} reports, all right, and none was seen to keep the loop's thread. "
        f"The lookups meanwhile: {run.latency()}.",
    )


def chart(run: lab.Run) -> None:
    """The lookups, while the reports were made."""
    lab.timeline(run)


async def _waits_for(report: Awaitable[None]) -> bool:
    """Run one report, alone. Returns whether it gave the loop back, to wait for something."""
    waited = asyncio.Event()
    asyncio.get_running_loop().call_soon(waited.set)
    try:
        await report
    except lab.LabError:
        raise
    except Exception as error:
        raise lab.LabError(f"a report, alone: {type(error).__name__}: {error}") from None
    return waited.is_set()
