"""What the modules of the service share: a pool, a gate, and what it keeps in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

LOOKUP = "SELECT amount FROM labkit.orders WHERE id = $1"
CONNECTIONS = 5
CATALOGUE = [
    {"article": n, "name": f"article {n}", "price": n / 7, "tags": ["new", "sale"]}
    for n in range(60_000)
]


@dataclass
class Service:
    dsn: str
    pool: asyncpg.Pool
    catalogue: list[dict[str, Any]] = field(default_factory=lambda: CATALOGUE)
    sessions: list[list[int]] = field(default_factory=list)
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(3))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def lookup(self) -> Any:
        """What most requests want: one row, by its primary key."""
        return await self.pool.fetchval(LOOKUP, 7)


@asynccontextmanager
async def open_service(dsn: str, sessions: int = 0) -> AsyncIterator[Service]:
    """Start the service; it ends with the block, and leaves nothing behind."""
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        service = Service(dsn, pool)
        if sessions:
            gc.disable()  # or Python would collect again and again while the list grows
            try:
                service.sessions.extend([number] for number in range(sessions))
            finally:
                gc.enable()
            gc.collect()
        yield service
