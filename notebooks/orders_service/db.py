"""The service's database: one pool, opened at start-up."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

import asyncpg

POOL_SIZE = 10

Stopwatch = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Database:
    """What every module is given. The stopwatch is the service's metrics."""

    dsn: str
    pool: asyncpg.Pool
    stopwatch: Stopwatch

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Borrow a connection, and time the wait for it."""
        with self.stopwatch("acquire"):
            connection = await self.pool.acquire()
        try:
            yield connection
        finally:
            await self.pool.release(connection)


@asynccontextmanager
async def open_database(dsn: str, stopwatch: Stopwatch = nullcontext) -> AsyncIterator[Database]:
    """Keep the pool open for as long as the service runs."""
    async with asyncpg.create_pool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        yield Database(dsn, pool, stopwatch)
