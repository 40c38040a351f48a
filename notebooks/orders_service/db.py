"""The service's database: one pool, opened at start-up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

POOL_SIZE = 10


@dataclass(frozen=True, slots=True)
class Database:
    """What every module is given."""

    dsn: str
    pool: asyncpg.Pool

    def connection(self) -> Any:
        """Borrow a connection: to be entered, as what `pool.acquire()` gives."""
        return self.pool.acquire()


@asynccontextmanager
async def open_database(dsn: str) -> AsyncIterator[Database]:
    """Keep the pool open for as long as the service runs."""
    async with asyncpg.create_pool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        yield Database(dsn, pool)
