"""Exercise of notebook 01: a report that does not hold the loop. This file is meant to be read.

An answer is judged by what it does under load: what it returns, and whether it held the loop.
"""

from collections.abc import Awaitable, Callable

import asyncpg
from legacy import monthly_report

import labkit as lab
from labkit.exercises import NotYet, held_by

HINTS = [
    "Run `lab.stalls(lab.measure(...))` on a scenario that offers your report four times a second: "
    "which line holds the loop? It may not be the only one.",
    "There are two ways. Either nothing in your function waits without `await` (asyncpg, and "
    "asyncio's own sleep), or the whole legacy function waits on another thread.",
    "In asyncpg's dialect the parameter is `$1`, `fetch` gives a list of records, and "
    "`await asyncio.sleep(0.08)` keeps the pause. Or, in one line: "
    "`return await asyncio.to_thread(...)`.",
]

SOLUTION = """
from legacy import monthly_report


async def monthly_orders(dsn, customer):
    connection = await asyncpg.connect(dsn)
    try:
        newest = "SELECT max(created_at) FROM labkit.orders WHERE customer = $1"
        if await connection.fetchval(newest, customer) is None:
            return {}
        await asyncio.sleep(0.08)
        months = monthly_report.MONTHS.replace("%s", "$1")
        return {row["month"]: row["count"] for row in await connection.fetch(months, customer)}
    finally:
        await connection.close()
"""

WHY = (
    "every wait is an `await`, so while this request waits the loop serves the others. "
    "`asyncio.to_thread(monthly_report.monthly_orders, dsn, customer)` passes too, and is the "
    "right answer when the legacy code must stay; it costs a thread for as long as it waits, and "
    "the default executor has only a few (five to 32), so it is no answer for hundreds at once."
)

CUSTOMERS = (42, 7, 999_999)  # the last one has no orders


def check(answer: Callable[[str, int], Awaitable[object]]) -> lab.Verdict:
    """Offer the answer eight times under 200 lookups per second, and watch the loop."""
    dsn = lab.database()
    expected = {c: monthly_report.monthly_orders(dsn, c) for c in CUSTOMERS}
    returned: dict[int, object] = {}

    async def your_report(load: lab.Load) -> None:
        turn = iter(range(1_000))

        async def report() -> None:
            customer = CUSTOMERS[next(turn) % len(CUSTOMERS)]
            returned[customer] = await answer(dsn, customer)

        async with asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool:
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: pool.fetchval(lookup), rate=200)
            load.offer("report", report, rate=4)
            await load.run(seconds=2)

    run = lab.measure(your_report, threshold_ms=30)
    reports = run.requests[run.requests.offer == "report"]
    if run.failed("report"):
        error = reports.error.dropna().iloc[0]
        raise lab.LabError(f"{run.failed('report')} of {len(reports)} reports: {error}")
    if held := held_by(run, 2, answer, monthly_report.__file__):
        longest = max(held, key=lambda stall: stall.duration_ms)
        raise NotYet(
            f"your report held the loop {len(held)} times in {len(reports)} calls. The longest: "
            f"{longest}. The lookups' p99 was {run.latency().p99:.0f} ms."
        )
    for customer in CUSTOMERS:
        if returned[customer] != expected[customer]:
            raise NotYet(
                f"the loop stayed free, but for customer {customer} the report should be "
                f"{expected[customer]} and was {returned[customer]!r:.200}."
            )
    return lab.Verdict(
        "pass",
        f"{len(reports)} reports, all right, and none held the loop for 30 ms. "
        f"The lookups meanwhile: {run.latency()}.",
    )


def chart(run: lab.Run) -> None:
    """The lookups, while the reports were made."""
    lab.timeline(run)
