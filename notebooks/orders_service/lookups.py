"""What an order cost: the request that everybody makes. Nothing is wrong with it."""

from decimal import Decimal

from .db import Database

LOOKUP = "SELECT amount FROM labkit.orders WHERE id = $1"


async def amount(db: Database, order: int) -> Decimal:
    """Look up one order by its primary key."""
    async with db.connection() as connection:
        found: Decimal = await connection.fetchval(LOOKUP, order)
    return found
