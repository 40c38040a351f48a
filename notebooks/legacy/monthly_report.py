"""The monthly report, written before the service was asynchronous. It belongs to an exercise."""

import time
from contextlib import closing

import psycopg2

MONTHS = """
    SELECT to_char(created_at, 'YYYY-MM') AS month, count(*)
    FROM labkit.orders
    WHERE customer = %s
    GROUP BY month
    ORDER BY month
"""


def monthly_orders(dsn: str, customer: int) -> dict[str, int]:
    """How many orders a customer placed in each month, oldest month first."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT max(created_at) FROM labkit.orders WHERE customer = %s", (customer,))
        if cursor.fetchone() == (None,):
            return {}
        time.sleep(0.08)  # an order may be on its way: give the replica a moment to catch up
        cursor.execute(MONTHS, (customer,))
        return dict(cursor.fetchall())
