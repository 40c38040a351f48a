"""A customer's latest orders."""

import asyncpg

from .db import Database

HISTORY = """
    SELECT id, amount, created_at FROM labkit.orders
    WHERE customer = $1 ORDER BY id DESC LIMIT 10
"""


async def history(db: Database, customer: int) -> list[asyncpg.Record]:
    """The ten latest orders of a customer, newest first."""
    connection = await asyncpg.connect(db.dsn)
    try:
        return list(await connection.fetch(HISTORY, customer))
    finally:
        await connection.close()
