"""Interest on 50,000 late orders, worked out in Python: the heavy work of notebook 04.

It stands in a module because a process pool passes functions by name, and its workers import the
module to find them. So it imports little, and does nothing when it is imported.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from multiprocessing import parent_process
from typing import Any

import asyncpg

ORDERS = """
SELECT customer, amount, (created_at AT TIME ZONE 'UTC')::date AS made_on
FROM labkit.orders WHERE id <= 50000
"""

DUE_AFTER = timedelta(days=30)
CENT = Decimal("0.01")
QUARTERS = (  # since, until, rate a year
    (date(2025, 1, 1), date(2025, 4, 1), Decimal("0.0727")),
    (date(2025, 4, 1), date(2025, 7, 1), Decimal("0.0727")),
    (date(2025, 7, 1), date(2025, 10, 1), Decimal("0.0627")),
)

Statement = tuple[int, int, Decimal, Decimal]  # customer, orders, amount, interest
Book = dict[int, list[Any]]  # for each customer: orders, amount, interest


@dataclass(frozen=True, slots=True)
class Order:
    customer: int
    amount: Decimal
    made_on: date

    def interest(self) -> Decimal:
        """What paying late costs: charged for each quarter, and each charge rounded."""
        due = self.made_on + DUE_AFTER
        charged = Decimal(0)
        for since, until, rate in QUARTERS:
            days = max((until - max(due, since)).days, 0)
            charged += (self.amount * days * rate / 365).quantize(CENT, ROUND_HALF_UP)
        return charged


def add(book: Book, rows: Iterable[Sequence[Any]]) -> None:
    """Enter some orders on their customers' accounts."""
    for row in rows:
        order = Order(*row)
        account = book.setdefault(order.customer, [0, Decimal(0), Decimal(0)])
        account[0] += 1
        account[1] += order.amount
        account[2] += order.interest()


def close(book: Book) -> list[Statement]:
    """Make a statement of each account."""
    return [(customer, *account) for customer, account in sorted(book.items())]


def transform(rows: Iterable[Sequence[Any]]) -> list[Statement]:
    """Make the statements of all customers from the rows of ORDERS."""
    book: Book = {}
    add(book, rows)
    return close(book)


# What follows runs in a worker process.


def start_worker() -> None:
    """Leave the stop button to the parent, and do not outlive it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


async def _fetch_and_transform(dsn: str) -> list[Statement]:
    connection = await asyncpg.connect(dsn)
    try:
        return transform(await connection.fetch(ORDERS))
    finally:
        await connection.close()


def fetch_and_transform(dsn: str) -> list[Statement]:
    """Do the whole job here, on a loop of its own: only the statements leave this process."""
    return asyncio.run(_fetch_and_transform(dsn))
