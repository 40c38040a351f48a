"""Answers to the exercise "acquire" of notebook 03."""

import asyncio
import contextlib
import time

import asyncpg
from legacy import booking
from legacy.booking import AMOUNT, CHARGE, LIMIT, RESERVE, TooDear

from labkit.exercises import database
from tests.exercises.answers import Case

locks: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}  # a lock belongs to one loop


def lock():
    return locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def by_the_pool(pool, order):
    await pool.execute(RESERVE, order)
    if await pool.fetchval(AMOUNT, order) > LIMIT:
        return False
    await pool.execute(CHARGE, order)
    return True


async def never_gives_back(pool, order):
    connection = await pool.acquire()
    return await book_on(connection, order)


async def lends_to_the_old_module(pool, order):
    async with pool.acquire() as booking.connection:
        return await booking.book(order)


async def behind_a_lock(pool, order):
    async with lock(), pool.acquire() as connection:
        return await book_on(connection, order)


async def borrows_twice(pool, order):
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(RESERVE, order)
            if await pool.fetchval(AMOUNT, order) > LIMIT:
                raise TooDear
            await connection.execute(CHARGE, order)
    except TooDear:
        return False
    return True


async def raises(pool, order):
    async with pool.transaction():
        await pool.execute(RESERVE, order)


async def misunderstands(pool, order):
    async with pool.acquire() as connection:
        return not await book_on(connection, order)


async def asks_first(pool, order):
    """Another style: no rollback is needed, since nothing is written before the answer."""
    async with pool.acquire() as connection:
        if await connection.fetchval(AMOUNT, order) > LIMIT:
            return False
        async with connection.transaction():
            await connection.executemany(
                "INSERT INTO labkit.bookings VALUES ($1, $2)",
                [(order, "reserved"), (order, "charged")],
            )
    return True


async def asks_first_by_the_pool(pool, order):
    """Nothing is to be rolled back, it seems: until the second statement fails."""
    if await pool.fetchval(AMOUNT, order) > LIMIT:
        return False
    await pool.execute(RESERVE, order)
    await pool.execute(CHARGE, order)
    return True


async def takes_it_back(pool, order):
    """What others could see meanwhile is not taken back."""
    try:
        await pool.execute(RESERVE, order)
        booked = await pool.fetchval(AMOUNT, order) <= LIMIT
        if booked:
            await pool.execute(CHARGE, order)
    except BaseException:
        await pool.execute("DELETE FROM labkit.bookings WHERE order_id = $1", order)
        raise
    if not booked:
        await pool.execute("DELETE FROM labkit.bookings WHERE order_id = $1", order)
    return booked


async def borrows_and_begins_nothing(pool, order):
    async with pool.acquire() as connection:
        if await connection.fetchval(AMOUNT, order) > LIMIT:
            return False
        await connection.execute(RESERVE, order)
        await asyncio.sleep(0.02)
        await connection.execute(CHARGE, order)
    return True


async def forgets_it_when_cancelled(pool, order):
    """A CancelledError is no Exception."""
    connection = await pool.acquire()
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(RESERVE, order)
        booked = await connection.fetchval(AMOUNT, order) <= LIMIT
        if booked:
            await connection.execute(CHARGE, order)
    except Exception:
        await transaction.rollback()
        await pool.release(connection)
        raise
    await (transaction.commit() if booked else transaction.rollback())
    await pool.release(connection)
    return booked


async def says_that_it_is_booked(pool, order):
    """Whatever the database says."""
    booked = True
    with contextlib.suppress(Exception):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(RESERVE, order)
            if await connection.fetchval(AMOUNT, order) > LIMIT:
                booked = False
                raise TooDear
            await connection.execute(CHARGE, order)
    return booked


async def shields_it(pool, order):
    """Another style: what is begun is brought to its end, also if the caller goes away."""
    return await asyncio.shield(asks_first(pool, order))


async def refuses_the_dearest(pool, order):
    """What costs the limit is not above it."""
    async with pool.acquire() as connection:
        if await connection.fetchval(AMOUNT, order) >= LIMIT:
            return False
        async with connection.transaction():
            await connection.execute(RESERVE, order)
            await connection.execute(CHARGE, order)
    return True


async def drops_the_cents(pool, order):
    """What costs a cent more is above it."""
    async with pool.acquire() as connection:
        if int(await connection.fetchval(AMOUNT, order)) > LIMIT:
            return False
        async with connection.transaction():
            await connection.execute(RESERVE, order)
            await connection.execute(CHARGE, order)
    return True


async def opens_more_in_a_crowd(pool, order):
    if pool.get_idle_size():
        return await asks_first(pool, order)
    return await opens_its_own(pool, order)


async def sleeps_in_the_loop(pool, order):
    time.sleep(0.05)
    return await asks_first(pool, order)


async def takes_the_cancellation_for_a_refusal(pool, order):
    try:
        return await asks_first(pool, order)
    except asyncio.CancelledError:
        return False


async def leaves_it_to_the_server(pool, order):
    """Another style: one statement that does it all needs no transaction of ours."""
    return await pool.fetchval(
        """
        WITH cheap AS (SELECT id FROM labkit.orders, pg_sleep(0.02) WHERE id = $1 AND amount <= $2),
        steps AS (INSERT INTO labkit.bookings SELECT id, step
                  FROM cheap, unnest(ARRAY['reserved', 'charged']) AS step RETURNING 1)
        SELECT count(*) = 2 FROM steps
        """,
        order,
        LIMIT,
    )


async def opens_its_own(pool, order):
    connection = await asyncpg.connect(database())
    try:
        return await book_on(connection, order)
    finally:
        await connection.close()


async def opens_its_own_pool(pool, order):
    """Nor is a pool for each booking the service's."""
    async with asyncpg.create_pool(database(), min_size=1) as own:
        return await asks_first(own, order)


async def charges_first(pool, order):
    """Another style: in a transaction, nobody sees which step was written first."""
    async with pool.acquire() as connection:
        if await connection.fetchval(AMOUNT, order) > LIMIT:
            return False
        async with connection.transaction():
            await connection.execute(CHARGE, order)
            await connection.execute(RESERVE, order)
    return True


async def takes_turns_with_a_connection(pool, order):
    """All five are borrowed, and four of them wait."""
    async with pool.acquire() as connection, lock():
        return await book_on(connection, order)


async def locks_the_table(pool, order):
    return await asks_first_behind("LOCK TABLE labkit.bookings IN EXCLUSIVE MODE", pool, order)


async def locks_for_all(pool, order):
    return await asks_first_behind("SELECT pg_advisory_xact_lock(1)", pool, order)


async def locks_for_itself(pool, order):
    """Another style: only who books the same order has to wait."""
    return await asks_first_behind(f"SELECT pg_advisory_xact_lock({order})", pool, order)


async def asks_first_behind(a_lock, pool, order):
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(a_lock)
        if await connection.fetchval(AMOUNT, order) > LIMIT:
            return False
        await connection.execute(RESERVE, order)
        await connection.execute(CHARGE, order)
    return True


async def returns_in_the_transaction(pool, order):
    """No exception leaves the block: so it commits."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(RESERVE, order)
        if await connection.fetchval(AMOUNT, order) > LIMIT:
            return False
        await connection.execute(CHARGE, order)
    return True


async def lets_its_refusal_out(pool, order):
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(RESERVE, order)
        if await connection.fetchval(AMOUNT, order) > LIMIT:
            raise TooDear
        await connection.execute(CHARGE, order)
    return True


async def book_on(connection, order):
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(RESERVE, order)
    if await connection.fetchval(AMOUNT, order) > LIMIT:
        await transaction.rollback()
        return False
    await connection.execute(CHARGE, order)
    await transaction.commit()
    return True


CASES = [
    Case(by_the_pool, "not yet", r"order \d+ alone (half done|returned False and left the steps)"),
    Case(never_gives_back, "not yet", "1 of the pool's 5 connections had not come back"),
    Case(lends_to_the_old_module, "not yet", r"of 20 bookings at once \d+ failed: \w+Error"),
    Case(behind_a_lock, "not yet", "no more than 1 of the pool's 5 connections"),
    Case(
        borrows_twice,
        "not yet",
        r"had not returned after [48] s, with 5 of .* alone borrowed 2 at once",
        by_the_clock=True,
    ),
    Case(asks_first_by_the_pool, "not yet", "(half done|left the steps|refused .* and the steps)"),
    Case(takes_it_back, "not yet", r"half done: for a while there was \['reserved'\]"),
    Case(
        borrows_and_begins_nothing,
        "not yet",
        "(order 1 alone half|left the steps|to charge order 1).* transaction on",
    ),
    Case(opens_its_own, "not yet", "none of 20 bookings at once borrowed a connection of `pool`"),
    Case(opens_its_own_pool, "not yet", "they work on connections beside it"),
    Case(charges_first, "pass", "20 bookings at once took .* on all 5 connections"),
    Case(takes_turns_with_a_connection, "not yet", "no more than 1 came to write at the same time"),
    Case(locks_the_table, "not yet", "came to write at the same time: the others wait for it"),
    Case(locks_for_all, "not yet", "Look for a lock that all bookings take"),
    Case(locks_for_itself, "pass", "20 bookings at once took .* on all 5 connections"),
    Case(leaves_it_to_the_server, "pass", "20 bookings at once took .* on all 5 connections"),
    Case(forgets_it_when_cancelled, "not yet", "went away in the middle, and 1 of the pool's 5"),
    Case(takes_the_cancellation_for_a_refusal, "not yet", "in the middle, and .* ended with False"),
    Case(refuses_the_dearest, "not yet", r"orders \[13100\] were wrong: .* True, and was False"),
    Case(drops_the_cents, "not yet", r"orders \[8469\] were wrong: .* False, and was True"),
    Case(opens_more_in_a_crowd, "not yet", r"\d+ connections were opened while 20 bookings ran"),
    Case(
        sleeps_in_the_loop,
        "not yet",
        r"a line of yours kept .*blocked.* acquire\.py:\d+ in sleeps_in_the_loop",
        by_the_clock=True,
    ),
    Case(says_that_it_is_booked, "not yet", "nothing was left, and your function returned True"),
    Case(misunderstands, "not yet", "order 1 alone should be True, and was False"),
    Case(
        returns_in_the_transaction,
        "not yet",
        r"order 11 alone returned False and left the steps \['res.*by `return` commits",
    ),
    Case(lets_its_refusal_out, "raised", r"order 11 alone: expected False, and got TooDear\."),
    Case(raises, "raised", "order 1 alone: expected True, and got AttributeError"),
    Case(shields_it, "pass", "20 bookings at once took .* on all 5 connections"),
    Case(asks_first, "pass", "20 bookings at once took .* on all 5 connections"),
]
