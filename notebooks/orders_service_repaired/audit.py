"""The audit page."""

from decimal import Decimal

from .db import Database

# pg_sleep stands for a report on a cold, unindexed table: 120 ms, the same on every machine.
TRAIL = """
    SELECT count(*), sum(amount)
    FROM labkit.orders, pg_sleep(0.12)
    WHERE customer = $1
"""


async def audit(db: Database, customer: int) -> tuple[int, Decimal]:
    """How many orders a customer has, and what they add up to."""
    async with db.connection() as connection:
        count, total = await connection.fetchrow(TRAIL, customer)
    return count, total
