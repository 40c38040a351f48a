"""The best customer of each week, worked out in Python. It belongs to an exercise."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

ORDERS = """
SELECT customer, amount, created_at AT TIME ZONE 'UTC' AS made_at
FROM labkit.orders WHERE customer < 250
"""


def rank(rows: Iterable[tuple[int, Decimal, datetime]]) -> dict[str, tuple[int, int]]:
    """For each ISO week, as in "2025-01": its best customer, and that customer's points.

    An order earns a point for every full 10 of its amount. Of several who are equally good, the
    best is the one with the lowest number.
    """
    points: dict[tuple[str, int], int] = {}
    for customer, amount, made_at in rows:
        year, week, _ = made_at.isocalendar()
        key = f"{year}-{week:02}", customer
        points[key] = points.get(key, 0) + int(amount // 10)
    best: dict[str, tuple[int, int]] = {}
    for (week_name, customer), earned in sorted(points.items()):
        if week_name not in best or earned > best[week_name][1]:
            best[week_name] = customer, earned
    return best
