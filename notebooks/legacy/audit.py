"""The audit trail, written before the service was asynchronous. Open it: it is part of the lesson.

Nobody has touched it since. It works, its tests pass, and it is called from one place.
"""

from contextlib import closing
from decimal import Decimal

import psycopg2

# pg_sleep stands for a report on a cold, unindexed table: 120 ms, the same on every machine.
AUDIT = """
    SELECT count(*), sum(amount)
    FROM labkit.orders, pg_sleep(0.12)
    WHERE customer = %s
"""


def audit(dsn: str, customer: int) -> tuple[int, Decimal]:
    """How many orders a customer has, and what they add up to."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(AUDIT, (customer,))
        count, total = cursor.fetchone()
    return count, total
