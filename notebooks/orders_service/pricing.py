"""What an order costs with tax."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg

from .db import Database

PRICE = "SELECT round(amount * 1.19, 2) FROM labkit.orders WHERE id = $1"


class Pricing:
    """Made once, when the service starts."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def price(self, order: int) -> Decimal:
        """The amount of an order with tax, rounded to the cent."""
        price: Decimal = await self.connection.fetchval(PRICE, order)
        return price


@asynccontextmanager
async def open_pricing(db: Database) -> AsyncIterator[Pricing]:
    """Keep the pricing open for as long as the service runs."""
    async with db.pool.acquire() as connection:
        yield Pricing(connection)
