"""Booking an order, written when the service had one connection. It belongs to an exercise."""

from typing import Any

LIMIT = 500  # an order that costs more is refused

RESERVE = "INSERT INTO labkit.bookings VALUES ($1, 'reserved')"
AMOUNT = "SELECT amount FROM labkit.orders, pg_sleep(0.02) WHERE id = $1"  # the server is slow
CHARGE = "INSERT INTO labkit.bookings VALUES ($1, 'charged')"

connection: Any = None  # an asyncpg connection, opened at start-up, for everybody


class TooDear(Exception):  # noqa: N818 (nothing went wrong: it is an answer)
    """The order costs more than LIMIT."""


async def book(order: int) -> bool:
    """Reserve an order and charge it: both, or neither. Returns whether it was booked."""
    try:
        async with connection.transaction():
            await connection.execute(RESERVE, order)
            if await connection.fetchval(AMOUNT, order) > LIMIT:
                raise TooDear
            await connection.execute(CHARGE, order)
    except TooDear:
        return False
    return True
