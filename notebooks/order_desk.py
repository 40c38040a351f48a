"""The order desk of the service. What it asks is kept in a module global, set at start-up."""

from decimal import Decimal

import asyncpg

source: asyncpg.Connection | asyncpg.Pool | None = None


async def amount_of(order: int) -> Decimal:
    """What an order cost."""
    return await source.fetchval("SELECT amount FROM labkit.orders WHERE id = $1", order)
