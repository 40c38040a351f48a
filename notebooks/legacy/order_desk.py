"""The order desk of the service. What it asks is kept in a module global, set at start-up."""

from decimal import Decimal
from typing import Any

source: Any = None  # an asyncpg connection, or a pool


async def amount_of(order: int) -> Decimal:
    """What an order cost."""
    amount: Decimal = await source.fetchval("SELECT amount FROM labkit.orders WHERE id = $1", order)
    return amount
