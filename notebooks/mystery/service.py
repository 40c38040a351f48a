"""What the modules of the service share: a pool, a gate, and what it keeps in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

Stopwatch = Callable[[str], AbstractContextManager[None]]

LOOKUP = "SELECT amount FROM labkit.orders WHERE id = $1"
CONNECTIONS = 5
CATALOGUE = [
    {"article": n, "name": f"article {n}", "price": n / 7, "tags": ["new", "sale"]}
    for n in range(60_000)
]


class Pool:
    """asyncpg's pool, with a stopwatch on each wait for a connection and on each use of one."""

    def __init__(self, pool: Any, stopwatch: Stopwatch) -> None:
        self._pool, self._stopwatch = pool, stopwatch
        self.get_idle_size = pool.get_idle_size

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """Borrow a connection for as long as the block lasts."""
        with self._stopwatch("acquire"):
            connection = await self._pool.acquire()
        with self._stopwatch("connection"):
            try:
                yield connection
            finally:
                await self._pool.release(connection)

    async def fetchval(self, query: str, *args: object) -> Any:
        """Borrow a connection for one query."""
        async with self.acquire() as connection:
            return await connection.fetchval(query, *args)


@dataclass
class Service:
    dsn: str
    pool: Pool
    catalogue: list[dict[str, Any]] = field(default_factory=lambda: CATALOGUE)
    sessions: list[list[int]] = field(default_factory=list)
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(3))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def lookup(self) -> Any:
        """What most requests want: one row, by its primary key."""
        return await self.pool.fetchval(LOOKUP, 7)


@asynccontextmanager
async def open_service(dsn: str, stopwatch: Stopwatch, sessions: int = 0) -> AsyncIterator[Service]:
    """Start the service; it ends with the block, and leaves nothing behind."""
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        service = Service(dsn, Pool(pool, stopwatch))
        if sessions:
            gc.disable()  # or Python would collect again and again while the list grows
            try:
                service.sessions.extend([number] for number in range(sessions))
            finally:
                gc.enable()
            gc.collect()
        yield service
