"""The audit page. Its query is older than the rest of the service."""

from contextlib import closing
from decimal import Decimal

import psycopg2

from .db import Database

# pg_sleep stands for a report on a cold, unindexed table: 120 ms, the same on every machine.
TRAIL = """
    SELECT count(*), sum(amount)
    FROM labkit.orders, pg_sleep(0.12)
    WHERE customer = %s
"""


def query_trail(dsn: str, customer: int) -> tuple[int, Decimal]:
    """Ask as the rest of the service once did."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(TRAIL, (customer,))
        count, total = cursor.fetchone()
    return count, total


async def audit(db: Database, customer: int) -> tuple[int, Decimal]:
    """How many orders a customer has, and what they add up to."""
    return query_trail(db.dsn, customer)
