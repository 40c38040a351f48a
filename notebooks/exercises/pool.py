"""Exercise of notebook 02: the pool of a service. This file is meant to be read.

An answer is judged by what its pool does: which connections answer, and who waits for them.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
from exercises.instruments.meanwhile import end_all, opened

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database

GRANTED = 8  # connections
WAIT = 0.2  # s; how long an honest query waits for a row
HONEST = 0.25  # s; the slowest query that has to be answered
LOCKED = 1.8  # s; how long the row is stuck
SOON = 1_000  # queries; asyncpg's own limit is 50,000
WANTED = 10  # requests per second for the stuck row

HINTS = [
    "Three arguments of `asyncpg.create_pool` matter here, besides the dsn: which does each of "
    "the four terms speak of? And a pool has no connection before it is awaited.",
    "All eight connections have to be open when your function returns: so the pool can neither "
    "shrink nor grow. A request for the stuck row keeps its connection until a timeout ends it, so "
    "they take 10 × timeout of the eight.",
    "`return await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=…)`: at 0.8 s "
    "they would take all eight, and a query of 0.25 s needs some room, also if it spends most of "
    "them waiting for a row. Half way between is good.",
]

SOLUTION = """
async def open_pool(dsn):
    return await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5)
"""

WHY = """all connections are opened before the first request; later, only to replace one that broke
or has served 50,000 queries, resets included. At 10 requests per second, 0.5 s takes 5 connections:
3 are left for the lookups, and an honest query has twice its time.
When not to use it: where queries differ widely, give slow ones a `timeout=` of their own. Where
many instances share a server, idle connections are taken from others."""

WHO = "SELECT pg_backend_pid() FROM pg_sleep($1)"
LOOKUP = "SELECT pg_backend_pid() FROM labkit.orders WHERE id = 7"
ROW = "SELECT FROM labkit.orders WHERE id = 7 FOR UPDATE"
OTHER_ROW = "SELECT FROM labkit.orders WHERE id = 8 FOR UPDATE"
CLOSED = "Connections were closed that are still needed, by the pool or by the server."


class Keeper(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """The check's own, which keeps a row locked. As it is made without a patch, it is not noted."""

    __init__ = asyncpg.Connection.__init__


Answer = Callable[[str], Awaitable[asyncpg.Pool]]
OpenPool = Callable[[], Awaitable[asyncpg.Pool]]
Close = Callable[[asyncpg.Pool], Awaitable[None]]


def check(answer: Answer) -> lab.Verdict:
    """Send bursts through the pool; if it stands them, lock a row that many requests want."""
    dsn = database()
    services: list[asyncpg.Pool] = []
    at_once: list[int] = []  # connections, each time that one was opened

    with opened(at_once) as connections:

        async def open_pool() -> asyncpg.Pool:
            return await _opened(dsn, answer, services, connections)

        async def close(pool: asyncpg.Pool) -> None:
            await _closed(pool)
            if left := end_all(connections):
                raise NotYet(
                    f"{left} connections were opened beside the pool, after open_pool had "
                    f"returned. The service is granted {GRANTED}, and never more."
                )

        _bursts(dsn, open_pool, close)
        verdict = _locked_row(dsn, open_pool, close)
    if (most := max(at_once, default=0)) > GRANTED:
        raise NotYet(
            f"{most} connections were open at once: some of them were opened beside the pool, and "
            f"closed again. The service is granted {GRANTED}, and never more."
        )
    return verdict


def chart(run: lab.Run) -> None:
    """Who had the connections."""
    if "idle" in run.gauges:
        idle = run.gauges["idle"]
        lab.gauges(run, title=f"Your pool, with a locked row: {idle.median():.0f} idle (median)")
    else:
        size = run.gauges["open"]
        lab.gauges(
            run,
            title=f"Your pool, in two bursts of 20: {size.iloc[0]:.0f} connections open before "
            f"them, {size.iloc[-1]:.0f} after",
        )


def _bursts(dsn: str, open_pool: OpenPool, close: Close) -> None:
    """Twenty at once, an honest slow query, and one that waits for a row."""
    backends: set[int] = set()
    warm = most = size = left = lifetime = 0

    async def bursts(load: lab.Load) -> None:
        nonlocal warm, most, size, left, lifetime
        pool = await open_pool()

        async def who(seconds: float) -> None:
            backends.add(await pool.fetchval(WHO, seconds))

        async def wait_for_a_row() -> None:
            async with _locked(dsn, OTHER_ROW):
                waits = asyncio.ensure_future(pool.execute(OTHER_ROW))
                await asyncio.sleep(WAIT)
            await waits

        try:
            warm = pool.get_size()
            load.offer("lookup", lambda: who(0.05), rate=2, burst=20)
            load.offer("report", lambda: who(HONEST), rate=2)
            load.offer("waiter", wait_for_a_row, rate=1)
            load.gauge("open", pool.get_size)
            await load.run(seconds=1)
            most, lifetime = pool.get_max_size(), pool._max_inactive_connection_lifetime
            size = pool.get_size()
            _idle(pool)
            left = pool.get_size()
        finally:
            await close(pool)

    run = lab.measure(bursts)
    for offer, what in (
        ("lookup", "lookups"),
        ("report", f"honest queries of {HONEST} s"),
        ("waiter", f"honest queries that wait {WAIT} s for a row"),
    ):
        asked = run.requests[run.requests.offer == offer]
        if run.failed(offer):
            error = asked.error.dropna().iloc[0]
            seen = f"{run.failed(offer)} of {len(asked)} {what} failed: {error}."
            raise by_the_clock(run, 1e3 * HONEST / 2, seen)
    if warm < len(backends) <= GRANTED:
        raise NotYet(
            f"{warm} connections were open when open_pool returned, and {len(backends)} answered "
            f"a burst: the others were opened while requests waited for them. "
            f"The requests of the bursts: {run.latency()}."
        )
    if len(backends) > GRANTED >= most:
        raise NotYet(
            f"the bursts were answered by {len(backends)} connections, never by more than {most} "
            f"at a time: others were opened between them. {CLOSED}"
        )
    if len(backends) != GRANTED:
        raise NotYet(
            f"the bursts of 20 requests were answered by {len(backends)} connections. The service "
            f"is granted {GRANTED}, and uses them all when it is busy."
        )
    if left < size:
        raise NotYet(
            f"your pool closes connections that nobody has asked for {lifetime:g} s: of "
            f"{GRANTED}, {left} would be left, and the next requests would wait for others to be "
            f"opened. A pool keeps `min_size` connections, however long they idle."
        )


def _locked_row(dsn: str, open_pool: OpenPool, close: Close) -> lab.Verdict:
    """Lookups, while a row is locked that others want."""
    released, queries = 0.0, math.inf
    backends: set[int] = set()
    later: set[int] = set()

    async def locked_row(load: lab.Load) -> None:
        async def forget() -> None:
            nonlocal released
            async with _locked(dsn, ROW):
                await asyncio.sleep(LOCKED)
                released = load.elapsed

        async def look_up() -> None:
            later.add(await pool.fetchval(LOOKUP))

        async def everybody() -> list[int]:
            asked = (pool.fetchval(WHO, 0.05) for _ in range(GRANTED))
            return [*await asyncio.gather(*asked)]

        nonlocal queries
        pool = await open_pool()
        queries = pool._holders[0]._max_queries
        try:
            backends.update(await everybody())
            load.offer("lookup", look_up, rate=50)
            load.offer("reserve", lambda: pool.execute(ROW), rate=WANTED)
            load.gauge("idle", pool.get_idle_size)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(forget())
                await load.run(seconds=LOCKED + 0.2)
            later.update(await everybody())
        finally:
            await close(pool)

    run = lab.measure(locked_row)
    lookups = run.requests[run.requests.offer == "lookup"]
    during = lookups[lookups.intended_s < released]
    hanging = int((during.started_s + during.service_ms / 1e3 >= released).sum())
    idle = run.gauges["idle"][run.gauges.index < released]
    exhausted = (idle == 0).mean()
    if exhausted > 1 / 3:
        raise by_the_clock(
            run,
            1e3 * HONEST / 2,
            f"while the row was locked, no connection was idle for {exhausted:.0%} of the time, "
            f"and {hanging} of {len(during)} lookups hung until it was free: those who wanted the "
            f"row had taken the pool. The lookups: {run.latency()}.",
        )
    if run.failed("lookup"):
        error = lookups.error.dropna().iloc[0]
        failed = f"{run.failed('lookup')} of {len(lookups)} lookups failed: {error}."
        raise by_the_clock(run, 1e3 * HONEST / 2, f"while the row was locked, {failed}")
    if new := later - backends:
        raise NotYet(
            f"{GRANTED} connections were open when open_pool returned, and {len(new)} others were "
            f"opened in the {LOCKED + 0.2:g} s after that, while requests waited for them. {CLOSED}"
        )
    if queries < SOON:
        raise NotYet(
            f"your pool closes each connection after {queries:g} queries, and the request that "
            f"comes next waits until another one is opened. Leave `max_queries` as it is."
        )
    return lab.Verdict(
        "pass",
        f"{GRANTED} connections, all warm, none opened later. While a row was locked "
        f"{idle.median():.0f} of them were idle, and the lookups went on: {run.latency()}.",
    )


async def _opened(
    dsn: str,
    answer: Answer,
    services: list[asyncpg.Pool],
    connections: list[asyncpg.Connection],
) -> asyncpg.Pool:
    try:
        pool = await answer(dsn)
    except lab.LabError:
        raise
    except Exception as error:
        said = f"open_pool raised {type(error).__name__}: {error}"
        if isinstance(error, asyncpg.InvalidPasswordError):
            said += '. An f-string hides the password of `dsn`, as print does: write `dsn + "…"`.'
        raise lab.LabError(said) from None
    if pool in services:
        raise NotYet(
            "open_pool was called for a second service, and returned the pool of the first, which "
            "is closed by now. Expected a new pool at each call."
        )
    if isinstance(pool, asyncpg.Pool):
        size, closed = pool.get_size(), pool.is_closing()
        if size == 0 and not closed:
            await pool  # does nothing if that was done
        if closed or pool.get_size() > size:
            await _closed(pool)
            raise NotYet(
                f"open_pool returned a pool that {'is closed' if closed else 'was not awaited'}: "
                f"nobody can use it. Expected `return await asyncpg.create_pool(…)`."
            )
        services.append(pool)
        still_open = [each for each in connections if not each.is_closed()]
        beside = len(still_open) - (size := pool.get_size())
        if beside > 0 and beside + size > GRANTED:
            end_all(connections)
            raise NotYet(
                f"when open_pool returned, {size} connections of its pool were open, and {beside} "
                f"beside it. The service is granted {GRANTED}, and never more."
            )
        return pool
    if isinstance(pool, asyncpg.Connection):
        await pool.close()
    what = "None" if pool is None else f"a {type(pool).__name__}"
    raise NotYet(f"open_pool returned {what}. Expected an asyncpg pool.")


def _idle(pool: asyncpg.Pool) -> None:
    """Let the `max_inactive_connection_lifetime` of each connection be over."""
    for holder in pool._holders:
        if holder._max_inactive_time and holder.is_idle():
            holder._deactivate_inactive_connection()  # what its timer would call


@asynccontextmanager
async def _locked(dsn: str, row: str) -> AsyncIterator[None]:
    """Keep a row locked, on a connection beside the pool, for as long as the block runs."""
    connection = await asyncpg.connect(dsn, connection_class=Keeper)
    try:
        async with connection.transaction():
            await connection.execute(row)
            yield
    finally:
        await connection.close()


async def _closed(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(2):
            await pool.close()
    except TimeoutError:
        pool.terminate()
    except asyncpg.InterfaceError:
        pass  # it was never opened
