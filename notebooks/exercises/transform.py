"""Exercise of notebook 04: a heavy report away from the loop. This file is meant to be read.

An answer is judged by what it costs this process. First it is called alone, twice, with nothing
else on the loop: so the CPU time of the loop's thread, and of all others, is the answer's, in
whatever file its helpers stand, and however busy the machine is. The rows are counted where they
come out of PostgreSQL's connections, and between the two calls an order comes in. Then it is
offered under load, for what the lookups feel.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any

import asyncpg
from exercises.instruments.cost import ENOUGH, Cost, counted_rows, measured
from exercises.instruments.meanwhile import another_order
from legacy import ranking, transform

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database

HINTS = [
    "Where is the work? `fetch` decodes 50,000 rows on the loop's thread, and `rank` goes through "
    "them in Python. A thread shares the interpreter with the loop, and rows that travel to a "
    "worker are decoded and pickled on this side. So: who can do both, fetch and rank?",
    "PostgreSQL can. Sum the points by week and customer: `to_char(made_at, 'IYYY-IW')` is the "
    "ISO week, and `floor(amount / 10)` an order's points. (Or let a cursor bring a few hundred "
    "rows at a time, and keep what you do with each batch short.)",
    "Of each week you want one row, the best: `SELECT DISTINCT ON (week) week, customer, points "
    "FROM (... GROUP BY week, customer) AS sums ORDER BY week, points DESC, customer`. Cast "
    "`sum(...)::int`, so that points are whole numbers in Python as well.",
]

SOLUTION = '''
from legacy import ranking

BEST = f"""
SELECT DISTINCT ON (week) week, customer, points
FROM (SELECT to_char(made_at, 'IYYY-IW') AS week, customer, sum(floor(amount / 10))::int AS points
      FROM ({ranking.ORDERS}) AS orders GROUP BY week, customer) AS sums
ORDER BY week, points DESC, customer
"""


async def best_by_week(pool, workers):
    return {row["week"]: (row["customer"], row["points"]) for row in await pool.fetch(BEST)}
'''

WHY = """a dozen rows come to the loop in place of 50,000: nothing to decode, and nothing to
compute here. PostgreSQL works in a process of its own.
Another way: a cursor with small batches, for what does not fit into memory.
When not to use SQL: where the database's processor is what you are short of, or where SQL would say
the rules again. Then let a worker process fetch and rank."""

ROWS_AT_A_TIME = 5_000  # decoding more in one go is felt by everybody
STALL_MS = 30.0
SIZE = 10  # of the pool: more than the calls that may overlap
NEWCOMER = 249
# Days whose ISO week belongs to another year, before those of the data set (which are of 2025): so
# who asks only for the newest order does not see that one has come in.
DAYS = [
    day
    for year in range(1900, 2010)
    for day in (datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, tzinfo=UTC))
    if day.isocalendar().year != year
]
MADE_AT = DAYS[os.getpid() % len(DAYS)]  # hardly another check's
WEEK = f"{MADE_AT:%G-%V}"
TAKEN = 0.1  # the share of time in which it may take the whole pool
FELT_MS = 100.0  # the lookups' p99, where they were fine but for the answer
# Of the sessions. Who leaves it to them which week it is would be right in UTC alone.
ZONE = "Asia/Tokyo"
LOOKUP = "SELECT amount FROM labkit.orders WHERE id = 7"

# What the threads of a process pool do here, by their names or their kinds.
PICKLING = {
    "QueueFeederThread": "what you send to a worker is pickled",
    "_ExecutorManagerThread": "what a worker sends back is unpickled",
}

Answer = Callable[[Any, Any], Awaitable[object]]
Best = dict[str, tuple[int, int]]


def check(answer: Answer) -> lab.Verdict:
    """Call the answer alone, twice; then offer it four times under 200 lookups per second."""
    dsn = database()
    expected: Best = {}
    returned: list[tuple[object, Best]] = []  # and what is right
    costs: list[Cost] = []

    async def your_ranking(load: lab.Load) -> None:
        pool: asyncpg.Pool

        async def best() -> None:
            returned.append((await answer(pool, workers), dict(expected)))

        async def alone() -> None:
            costs.append(Cost())
            await measured(best, costs[-1])

        sizes: Any = {"min_size": SIZE, "max_size": SIZE, "server_settings": {"TimeZone": ZONE}}
        async with asyncpg.create_pool(dsn, **sizes) as pool:
            expected.update(_seen_here(ranking.rank(await pool.fetch(ranking.ORDERS))))
        # The same pool both times: some remember what they saw by the pool, or in a connection.
        with counted_rows(costs):
            async with asyncpg.create_pool(dsn, **sizes) as pool:
                await alone()
                async with another_order(dsn, NEWCOMER, MADE_AT) as amount:
                    expected.update(ranking.rank([(NEWCOMER, amount, MADE_AT)]))
                    await alone()
        del expected[WEEK]
        async with asyncpg.create_pool(dsn, **sizes) as pool:
            load.offer("lookup", lambda: pool.fetchval(LOOKUP), rate=200)
            load.offer("ranking", best, rate=2)
            load.gauge("idle", pool.get_idle_size)
            await load.run(seconds=2)

    with warm_workers() as workers:
        run = lab.measure(your_ranking, threshold_ms=STALL_MS)
    calls = run.requests[run.requests.offer == "ranking"]
    if run.failed("ranking"):
        error = calls.error.dropna().iloc[0]
        raise lab.LabError(f"{run.failed('ranking')} of {len(calls)} calls: {error}")
    p99 = run.latency().p99
    if fault := _fault(costs):
        raise NotYet(f"{fault} The lookups' p99 was {p99:.0f} ms.")
    last: object = None
    for result, right in returned:
        seen = _seen_here(result)
        wrong = not isinstance(seen, dict) or seen != right  # a DataFrame compares its elements
        if wrong and isinstance(seen, dict) and result == last:
            raise NotYet(
                "an order had come in between two calls, and the second result was still the "
                "first: your answer remembers."
            )
        if wrong:
            raise NotYet(f"the result is not right: {_wrong(seen, right)}.")
        last = result
    waits = sorted((s.own_ms, str(s)) for s in run.stalls if s.cause == "blocked")
    if not costs[-1].waited:  # and yet the result is new
        raise NotYet(
            "a call knew of the order that had just come in, and kept the loop until it returned: "
            "what it asked for, it waited for without "
            f"`await`{': ' + waits[-1][1] if waits else ''}. The lookups' p99 was {p99:.0f} ms."
        )
    # One may be the machine's.
    if len(waits) > 1 and waits[-2][0] > STALL_MS:
        raise by_the_clock(
            run,
            waits[-2][0],
            f"it was not computing that held the loop, but your answer waited {len(waits)} times "
            f"without `await`: {waits[-1][1]}. The lookups' p99 was {p99:.0f} ms.",
            waits[-2][0] / STALL_MS,
        )
    taken = run.share_of_time("idle", lambda free: free == 0)
    alone = (
        f"alone, no piece of your answer's work is long; together they held the loop for "
        f"{1e3 * max(cost.held for cost in costs):.0f} ms. But under load"
    )
    if taken > TAKEN:
        kept = f"all {SIZE} connections were in use for {taken:.0%} of the time, and the lookups"
        if len(costs[-1].connections) > 1:
            seen = f"your answer asked for several at once: {kept} waited for one"
        else:
            seen = f"{kept}, which had them, waited for the loop"
        # Lookups that come late come all at once.
        raise by_the_clock(run, 250, f"{alone} {seen}: p99 {p99:.0f} ms.", taken / TAKEN)
    if p99 > FELT_MS:
        raise by_the_clock(
            run,
            p99 / 4,  # one that is late in each of a lookup's steps
            f"{alone} the lookups' p99 was {p99:.0f} ms.",
            1,  # a queue has no end while the processors are too few
        )
    rows = max(cost.rows for cost in costs)
    return lab.Verdict(
        "pass",
        f"{len(returned)} rankings, all right. At most {rows:,} rows were decoded at a time, and "
        f"no stretch of work took more than {1e3 * max(cost.loop for cost in costs):.0f} ms of "
        f"the loop's thread. The lookups: {run.latency()}.",
    )


def chart(run: lab.Run) -> None:
    """The lookups, while the rankings were made."""
    lab.timeline(run)


@contextmanager
def warm_workers() -> Iterator[Executor]:
    """A pool of one worker process that has started."""
    workers = ProcessPoolExecutor(1, get_context("spawn"), transform.start_worker)
    try:
        workers.submit(ranking.rank, []).result()
        yield workers
    finally:
        for process in [*(workers._processes or {}).values()]:
            process.terminate()  # an answer may have given it work without end
        workers.shutdown(cancel_futures=True)


def _fault(costs: list[Cost]) -> str | None:
    """What the answer took from this process, in a sentence; None if not too much."""
    rows = max(cost.rows for cost in costs)
    loop = max(costs, key=lambda cost: cost.loop)
    # Decoding has no line of the answer: then the number of rows says it better.
    if loop.loop > ENOUGH and (loop.where or rows <= ROWS_AT_A_TIME):
        return (
            f"your answer worked for {1e3 * loop.loop:.0f} ms at a stretch on the loop's "
            f"thread{loop.where}."
        )
    # Its time alone is no proof where labkit's threads add up: it has to be seen at work.
    seen = [cost for cost in costs if cost.seen and cost.threads > ENOUGH]
    if threads := max(seen, key=lambda cost: cost.threads, default=None):
        line, name = max(threads.seen, key=lambda it: (it[0] != "", threads.seen[it]))
        took = f"{1e3 * threads.threads:.0f} ms of CPU time"
        if name in PICKLING and not line:
            return (
                f"{PICKLING[name]} in another thread of this process, {took}, and a thread shares "
                f"the interpreter with the loop. Send the question to a worker, and have no more "
                f"than the result sent back."
            )
        return (
            f"the work went to another thread of this process, {took}, and a thread shares the "
            f"interpreter with the loop. It was seen {line}in the thread {name}."
        )
    if rows > ROWS_AT_A_TIME:
        return (
            f"no line of yours was seen to hold the loop, but {rows:,} rows came to it in one go: "
            f"they are decoded on its thread, whatever is done with them afterwards."
        )
    return None


def _seen_here(result: Any) -> Any:
    """Without the weeks in which the order of another check has come in meanwhile."""
    if not isinstance(result, dict):
        return result
    return {k: it for k, it in result.items() if k == WEEK or str(k) > "2025"}


def _wrong(result: object, expected: Best) -> str:
    if isinstance(result, dict) and expected.keys() - result.keys() == {WEEK}:
        return f"an order of {MADE_AT:%Y-%m-%d} had come in, and its ISO week, {WEEK}, is missing"
    if not isinstance(result, dict) or result.keys() != expected.keys():
        week, best = next(iter(expected.items()))
        return (
            f"expected a dict of {len(expected)} weeks, {{{week!r}: {best}, ...}}: {result!r:.200}"
        )
    week = next(week for week in expected if result[week] != expected[week])
    said = f"for week {week} the best is {expected[week]}, and not {result[week]!r}"
    if not isinstance(result[week], tuple):
        return f"{said}. Expected a tuple"
    return (
        f"{said} (the weeks are those of UTC, and the time zone of the pool's sessions is {ZONE})"
    )
