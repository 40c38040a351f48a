"""Answers to the exercise "acquire" of notebook 03."""

import asyncio

import legacy_booking
from legacy_booking import AMOUNT, CHARGE, LIMIT, RESERVE, TooDear

from tests.exercises.answers import Case

lock = asyncio.Lock()


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
    async with pool.acquire() as legacy_booking.connection:
        return await legacy_booking.book(order)


async def behind_a_lock(pool, order):
    async with lock, pool.acquire() as connection:
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
    Case(
        by_the_pool, "not yet", r"order 11 alone returned False and left the steps \['reserved'\]"
    ),
    Case(never_gives_back, "not yet", "1 of the pool's 5 connections had not come back"),
    Case(lends_to_the_old_module, "not yet", r"of 20 bookings at once \d+ failed: \w+Error"),
    Case(behind_a_lock, "not yet", "no more than 1 of the pool's 5 connections"),
    Case(
        borrows_twice, "not yet", r"had not returned after 8 s, with 5 of .* alone held 2 at once"
    ),
    Case(misunderstands, "not yet", "order 1 alone should be True, and was False"),
    Case(raises, "raised", "order 1 alone: AttributeError"),
    Case(asks_first, "pass", "20 bookings at once took .* on all 5 connections"),
]
