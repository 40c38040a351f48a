"""What card payments cost: three charges for each order, and each is rounded to the cent."""

from decimal import Decimal

from .db import Database

FEES = """
    SELECT customer, count(*), sum(amount), sum(
        round(amount * CASE
            WHEN amount <= 100 THEN 0.0115 WHEN amount <= 500 THEN 0.0085 ELSE 0.0065 END, 2)
        + round(amount * 0.0013, 2) + round(amount * 0.0095, 2))
    FROM labkit.orders WHERE id <= 50000 GROUP BY customer ORDER BY customer
"""

Statement = tuple[int, int, Decimal, Decimal]  # customer, payments, amount, fees


async def fees(db: Database) -> list[Statement]:
    """The statements of all customers, over 50,000 payments."""
    async with db.connection() as connection, connection.transaction(readonly=True):
        # One core for this query; helpers would take the others from the lookups.
        await connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        return [tuple(row) for row in await connection.fetch(FEES)]
