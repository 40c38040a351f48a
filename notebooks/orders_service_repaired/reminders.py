"""Reminders to whoever has not paid yet."""

import asyncio
from collections.abc import Iterable

from .db import Database

PLACES = 5  # half of the pool: the rest is never the reminders'

# pg_sleep stands for a disk or a lock: the server waits 30 ms, and computes next to nothing.
REMIND = "SELECT note FROM labkit.orders, pg_sleep(0.03) WHERE id = $1"


class Reminders:
    """Made once, when the service starts."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.gate = asyncio.Semaphore(PLACES)

    async def remind(self, order: int) -> str:
        """Write one reminder."""
        async with self.db.connection() as connection:
            note: str = await connection.fetchval(REMIND, order)
        return f"Please pay for {note}."

    async def send(self, orders: Iterable[int]) -> list[str]:
        """Write them all."""
        begun = []
        async with asyncio.TaskGroup() as tasks:
            for order in orders:
                await self.gate.acquire()  # first: no more tasks than places
                begun.append(tasks.create_task(self.remind(order)))
                begun[-1].add_done_callback(lambda _: self.gate.release())
        return [task.result() for task in begun]
