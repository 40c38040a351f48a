"""Selling what is in stock, with the bank inside the transaction. It belongs to an exercise.

A customer can buy one of each item: (customer, item) is the primary key of labkit.sales. So these
two name a sale, and no statement here can meet another one.
"""

from typing import Any, Protocol

import asyncpg

TAKE = """
    UPDATE labkit.stock SET available = available - 1
    WHERE item = $1 AND available > 0 RETURNING available
"""
RESERVE = "INSERT INTO labkit.sales VALUES ($1, $2, 'reserved')"  # customer, item
PAY = "UPDATE labkit.sales SET state = 'paid' WHERE customer = $1 AND item = $2"

GIVE_BACK = "UPDATE labkit.stock SET available = available + 1 WHERE item = $1"
CANCEL = "DELETE FROM labkit.sales WHERE customer = $1 AND item = $2"


class Declined(Exception):  # noqa: N818 (nothing went wrong: it is an answer)
    """The bank does not pay for this customer."""


class Bank(Protocol):
    """Somebody else's service, and slow."""

    async def charge(self, customer: int) -> None:
        """Take the money. If this raises, whatever it raises, no money was taken."""


async def sell(pool: asyncpg.Pool, bank: Bank, item: int, customer: int) -> bool:
    """Sell one of an item to a customer, whole or not at all. Returns False if none is left."""
    connection: Any
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(TAKE, item) is None:
            return False
        await connection.execute(RESERVE, customer, item)
        await bank.charge(customer)
        await connection.execute(PAY, customer, item)
    return True
