"""Answers to the exercise "transform" of notebook 04."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Callable

import asyncpg
import pandas as pd
import psycopg2
from legacy import ranking

from labkit.exercises import database
from tests.exercises.answers import Case

SUMS = f"""
SELECT to_char(made_at, 'IYYY-IW') AS week, customer, sum(floor(amount / 10))::int AS points
FROM ({ranking.ORDERS}) AS orders GROUP BY week, customer
"""


async def stays_inline(pool, workers):
    return ranking.rank(await pool.fetch(ranking.ORDERS))


async def uses_a_thread(pool, workers):
    return await asyncio.to_thread(ranking.rank, await pool.fetch(ranking.ORDERS))


async def feeds_a_process(pool, workers):
    rows = [tuple(row) for row in await pool.fetch(ranking.ORDERS)]
    return await asyncio.get_running_loop().run_in_executor(workers, ranking.rank, rows)


async def feeds_a_process_with_columns(pool, workers):
    rows = await pool.fetch(ranking.ORDERS)
    return await asyncio.get_running_loop().run_in_executor(workers, ranking.rank, rows[:0])


async def forgets_who_wins_a_tie(pool, workers):
    best = "SELECT DISTINCT ON (week) * FROM (" + SUMS + ") AS s ORDER BY week, points, customer"
    return {row["week"]: (row["customer"], row["points"]) for row in await pool.fetch(best)}


async def returns_records(pool, workers):
    return await pool.fetch(SUMS)


async def returns_a_series(pool, workers):
    """It compares its elements: `==` has no truth value."""
    return pd.Series(await ranks_sums_in_python(pool, workers))


async def sends_records(pool, workers):
    rows = await pool.fetch(ranking.ORDERS)
    return await asyncio.get_running_loop().run_in_executor(workers, ranking.rank, rows)


async def ranks_sums_in_python(pool, workers):
    best = {}
    for week, customer, points in await pool.fetch(SUMS + "ORDER BY week, points DESC, customer"):
        best.setdefault(week, (customer, points))
    return best


async def streams(pool, workers):
    """Another style: a few rows at a time, and PostgreSQL has made them easy to add up."""
    earned = f"""
        SELECT to_char(made_at, 'IYYY-IW') AS week, customer, floor(amount / 10)::int AS points
        FROM ({ranking.ORDERS}) AS orders
    """
    points = Counter()
    async with pool.acquire() as connection, connection.transaction():
        cursor = await connection.cursor(earned)
        while batch := await cursor.fetch(200):
            for week, customer, more in batch:
                points[week, customer] += more
    return await best_of(points)


async def best_of(points):
    """Of each week the best customer; and after a few, somebody else's turn."""
    best = {}
    for n, ((week, customer), earned) in enumerate(points.items()):
        if n % 200 == 0:
            await asyncio.sleep(0)
        if week not in best or (earned, -customer) > (best[week][1], -best[week][0]):
            best[week] = customer, earned
    return best


async def takes_the_calendars_year(pool, workers):
    sums = SUMS.replace("IYYY", "YYYY") + "ORDER BY week, points DESC, customer"
    best = {}
    for week, customer, points in await pool.fetch(sums):
        best.setdefault(week, (customer, points))
    return best


cache: dict[str, object] = {}


async def works_once_and_remembers(pool, workers):
    """The program that was found to pass: it holds the loop, once."""
    if not cache:
        rows = []
        async with pool.acquire() as connection, connection.transaction():
            cursor = await connection.cursor(ranking.ORDERS)
            while batch := await cursor.fetch(4000):
                rows += batch
        cache.update(ranking.rank(rows))
    return cache


sums: dict[str, object] = {}


async def remembers(pool, workers):
    if not sums:
        sums.update(await ranks_sums_in_python(pool, workers))
    return sums


async def remembers_and_asks_something(pool, workers):
    """Waits, but for nothing that it wants to know."""
    await pool.fetchval("SELECT 1")
    return await remembers(pool, workers)


by_pool: dict[object, object] = {}


async def remembers_by_the_pool(pool, workers):
    """As a decorator would that keeps a result for each set of arguments."""
    if pool not in by_pool:
        by_pool[pool] = await ranks_sums_in_python(pool, workers)
    return by_pool[pool]


async def remembers_in_a_temporary_table(pool, workers):
    async with pool.acquire() as connection:
        await connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS sums AS {SUMS}")
        rows = await connection.fetch("SELECT * FROM sums ORDER BY points, customer DESC")
    return {row["week"]: (row["customer"], row["points"]) for row in rows}


async def waits_for_the_worker(pool, workers):
    """Another process works, and the loop's thread waits for it. It might be any job."""
    best = await ranks_sums_in_python(pool, workers)
    workers.submit(time.sleep, 0.2).result()
    return best


async def leaves_the_whole_call_to_the_loops_thread(pool, workers):
    """It asks anew each time, and never waits in a way that lets others run."""
    with psycopg2.connect(database()) as connection, connection.cursor() as cursor:
        cursor.execute(SUMS + "ORDER BY week, points DESC, customer")
        best = {}
        for week, customer, points in cursor:
            best.setdefault(week, (customer, points))
        return best


async def leaves_the_week_to_the_session(pool, workers):
    """Right as long as PostgreSQL's sessions are in UTC."""
    there = SUMS.replace(" AT TIME ZONE 'UTC'", "")
    best = {}
    for week, customer, points in await pool.fetch(there + "ORDER BY week, points DESC, customer"):
        best.setdefault(week, (customer, points))
    return best


async def asks_psycopg2(pool, workers):
    await asyncio.sleep(0)
    return await leaves_the_whole_call_to_the_loops_thread(pool, workers)


# Helpers that stand in other cells: other files.
HELPERS: dict[str, Callable[..., object]] = {}
exec(
    compile(
        """
def earn(rows, points):
    for customer, amount, made_at in rows:
        year, week, _ = made_at.isocalendar()
        key = f"{year}-{week:02}", customer
        points[key] = points.get(key, 0) + int(amount // 10)
""",
        "/tmp/ipykernel_1/1.py",
        "exec",
    ),
    HELPERS,
)
exec(
    compile(
        """
def work(rows):
    points, best = {}, {}
    earn(rows, points)
    for (week, customer), earned in sorted(points.items()):
        if week not in best or earned > best[week][1]:
            best[week] = customer, earned
    return best
""",
        "/tmp/ipykernel_1/2.py",
        "exec",
    ),
    HELPERS,
)


async def in_batches(pool, size, ready=lambda rows: rows):
    rows = []
    async with pool.acquire() as connection, connection.transaction():
        cursor = await connection.cursor(ranking.ORDERS)
        while batch := await cursor.fetch(size):
            rows += ready(batch)
    return rows


async def brings_batches_to_a_thread(pool, workers):
    """The helpers stand in other cells than the answer."""
    return await asyncio.to_thread(HELPERS["work"], await in_batches(pool, 2000))


async def brings_each_batch_to_a_thread(pool, workers):
    """So short a work that the looks find mostly what is around it, in the library."""
    points = {}
    async with pool.acquire() as connection, connection.transaction():
        cursor = await connection.cursor(ranking.ORDERS)
        while batch := await cursor.fetch(500):
            await asyncio.to_thread(HELPERS["earn"], batch, points)
    return await best_of(points)


async def brings_batches_to_a_process(pool, workers):
    """A few rows at a time; and then all of them are pickled, in a thread of this process."""
    rows = await in_batches(pool, 500, lambda batch: map(tuple, batch))
    return await asyncio.get_running_loop().run_in_executor(workers, ranking.rank, rows)


async def prepares_its_statement(pool, workers):
    async with pool.acquire() as connection:
        statement = await connection.prepare(ranking.ORDERS)
        rows = [tuple(row) for row in await statement.fetch()]
    return await asyncio.get_running_loop().run_in_executor(workers, ranking.rank, rows)


async def gives_way_now_and_then(pool, workers):
    """What comes after the fetch is in small pieces. The fetch is not."""
    points = {}
    for n, row in enumerate(await pool.fetch(ranking.ORDERS)):
        HELPERS["earn"]([row], points)
        if n % 200 == 0:
            await asyncio.sleep(0)
    return await best_of(points)


async def copies(pool, workers):
    """Rows that nobody decodes come to the loop, and cost it next to nothing."""
    async with pool.acquire() as connection:
        await connection.copy_from_query(ranking.ORDERS, output=io.BytesIO())
    return await ranks_sums_in_python(pool, workers)


async def opens_its_own_connection(pool, workers):
    connection = await asyncpg.connect(database())
    try:
        rows = await connection.fetch(ranking.ORDERS)
    finally:
        await connection.close()
    return await ranks_sums_in_python(pool, workers) if rows else {}


async def asks_for_all_weeks_at_once(pool, workers):
    """Not a row too many, and nothing held; but the lookups wait for a connection, and long."""
    weeks = await pool.fetch(f"SELECT DISTINCT week FROM ({SUMS}) AS sums")

    async def best(week):
        return await pool.fetchrow(
            f"SELECT * FROM ({SUMS}) AS s WHERE week = $1 ORDER BY points DESC, customer LIMIT 1",
            week,
        )

    rows = await asyncio.gather(*(best(row["week"]) for row in weeks * 2))
    # A week of another check's may have gone meanwhile.
    return {row["week"]: (row["customer"], row["points"]) for row in rows if row}


by_newest: dict[object, object] = {}


async def remembers_until_there_is_a_newer_one(pool, workers):
    """An order that comes in need not be the newest."""
    newest = await pool.fetchval(f"SELECT max(made_at) FROM ({ranking.ORDERS}) AS orders")
    if newest not in by_newest:
        by_newest[newest] = await ranks_sums_in_python(pool, workers)
    return by_newest[newest]


async def blocks_in_slices(pool, workers):
    """None is long, and they are many."""
    for _ in range(20):
        time.sleep(0.02)
        await asyncio.sleep(0)
    return await ranks_sums_in_python(pool, workers)


async def returns_lists(pool, workers):
    return {week: [*best] for week, best in (await ranks_sums_in_python(pool, workers)).items()}


IN_ONE_GO = "50,00[01] rows came to it in one go"

CASES = [
    Case(  # a starved probe may find no line
        stays_inline,
        "not yet",
        rf"(worked for \d+ ms at a stretch .* at ranking\.py:\d+ in rank|{IN_ONE_GO}: they)",
    ),
    Case(
        works_once_and_remembers,
        "not yet",
        r"worked for \d+ ms at a stretch on the loop's thread(, at ranking\.py:\d+|\.)",
    ),
    Case(
        uses_a_thread,
        "not yet",
        rf"was seen (at ranking\.py:\d+ in rank, )?in the thread asyncio|{IN_ONE_GO}: they are",
    ),
    Case(
        brings_batches_to_a_thread,
        "not yet",
        r"was seen at (1\.py:[1-9] in earn|2\.py:[1-9] in work), in the",
    ),
    Case(
        brings_each_batch_to_a_thread,
        "not yet",
        r"It was seen (at 1\.py:[1-9] in earn, )?in the thread asyncio_\d\.",
    ),
    Case(
        prepares_its_statement,  # its tuples may take long enough by themselves
        "not yet",
        r"(another thread .*, \d+ ms of CPU|worked for \d+ ms at a stretch)",
    ),
    Case(brings_batches_to_a_process, "not yet", "what you send to a worker is pickled in ano"),
    Case(feeds_a_process_with_columns, "not yet", IN_ONE_GO),
    Case(gives_way_now_and_then, "not yet", IN_ONE_GO + ": "),
    Case(opens_its_own_connection, "not yet", IN_ONE_GO + ": they are"),
    Case(remembers, "not yet", "two calls, and the second result was still the first: your"),
    Case(remembers_and_asks_something, "not yet", "the second result was still the first"),
    Case(remembers_by_the_pool, "not yet", "second result was still the first: your answer rem"),
    Case(remembers_in_a_temporary_table, "not yet", "an order had come in between two calls, and"),
    Case(
        leaves_the_whole_call_to_the_loops_thread,
        "not yet",
        r"kept the loop until it returned: .* without `await`|worked for \d+ ms at a stretch",
    ),
    Case(
        leaves_the_week_to_the_session, "not yet", r"for week 2025-\d\d .* sessions is Asia/Tokyo"
    ),
    Case(
        waits_for_the_worker,
        "not yet",
        r"waited \d times without `await`: \d+ ms, blocked, at .*workers\.submit",
        by_the_clock=True,
    ),
    Case(
        asks_psycopg2,
        "not yet",
        # The second, where the processor is slow.
        r"waited \d times without `await`: \d+ ms, blocked, at .*cursor"
        r"|worked for \d+ ms at a stretch",
        by_the_clock=True,
    ),
    Case(
        asks_for_all_weeks_at_once,
        "not yet",
        r"under load (your answer asked for several at once: all 10|the lookups' p99 was)"
        r"|a call of your answer had not ended",
        by_the_clock=True,
    ),
    Case(
        blocks_in_slices,
        "not yet",
        r"held the loop for [4-9]\d\d ms. But under load.*(waited for the loop|lookups' p99 was)",
        by_the_clock=True,
    ),
    Case(
        remembers_until_there_is_a_newer_one,
        "not yet",
        "between two calls, and the second result was still the first",
    ),
    Case(returns_lists, "not yet", r"and not \[\d+, \d+\]\. Expected a tuple"),
    Case(takes_the_calendars_year, "not yet", r"in, and its ISO week, \d{4}-\d\d, is missing"),
    Case(forgets_who_wins_a_tie, "not yet", r"for week 2025-\d\d the best is"),
    Case(returns_records, "not yet", r"expected a dict of 13 weeks, .*\[<Record"),
    Case(returns_a_series, "not yet", r"expected a dict of 13 weeks, .*2025-01      \(5, 730\)\n2"),
    Case(sends_records, "raised", "a call, alone: TypeError: .*pickle.*Record"),
    Case(ranks_sums_in_python, "pass", "6 rankings, all right"),
    Case(streams, "pass", "At most 200 rows"),
    Case(copies, "pass", "6 rankings, all right"),
]
