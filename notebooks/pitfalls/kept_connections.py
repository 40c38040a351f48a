"""Places where a connection hides. Pitfall 2 of notebook 07 runs them, and has ruff read them."""

import asyncio
from collections.abc import Iterable
from typing import Any, Self

import asyncpg

# pg_sleep stands for a disk or a lock: the server waits 20 ms, and computes next to nothing.
LOOKUP = "SELECT amount FROM labkit.orders, pg_sleep(0.02) WHERE id = $1"


class PerOperation:
    """Hides nothing: it keeps the pool, and borrows for each lookup."""

    def __init__(self, dsn: str, pool: asyncpg.Pool) -> None:
        self.dsn, self.pool = dsn, pool

    async def open(self) -> None:
        """When the service starts."""

    async def amount(self, order: int) -> Any:
        """What an order cost."""
        return await self.pool.fetchval(LOOKUP, order)

    async def amounts(self, orders: Iterable[int]) -> list[Any]:
        """What each of several orders cost, or the error; all at once."""
        return await asyncio.gather(*map(self.amount, orders), return_exceptions=True)

    async def close(self) -> None:
        """When the service stops."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class OnSelf(PerOperation):
    """Borrows a connection once, and keeps it on `self`."""

    async def open(self) -> None:
        self.connection = await self.pool.acquire()

    async def amount(self, order: int) -> Any:
        return await self.connection.fetchval(LOOKUP, order)

    async def close(self) -> None:
        await self.pool.release(self.connection)


class BehindALock(OnSelf):
    """The same, and a lock that keeps it quiet."""

    async def open(self) -> None:
        await super().open()
        self.lock = asyncio.Lock()

    async def amount(self, order: int) -> Any:
        async with self.lock:
            return await super().amount(order)


connection: Any = None


class InAGlobal(PerOperation):
    """Opens one beside the pool, and keeps it in a module global."""

    async def open(self) -> None:
        global connection
        connection = await asyncpg.connect(self.dsn)

    async def amount(self, order: int) -> Any:
        return await connection.fetchval(LOOKUP, order)

    async def close(self) -> None:
        await connection.close()


class AboveTheFanOut(PerOperation):
    """Borrows one for all the lookups together; the closure captures it."""

    async def amounts(self, orders: Iterable[int]) -> list[Any]:
        async with self.pool.acquire() as borrowed:

            async def amount(order: int) -> Any:
                return await borrowed.fetchval(LOOKUP, order)

            return await asyncio.gather(*map(amount, orders), return_exceptions=True)
