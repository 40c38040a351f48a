"""What the tests of the web service share: ask it, and count its connections."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import asyncpg
import pytest
from web_service import client, process

from labkit.server import Dsn

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")


def ask(service: process.Service, *names: str) -> list[bytes]:
    """Ask for each of these, one after the other."""

    async def main() -> list[bytes]:
        async with aiohttp.ClientSession(service.url) as session:
            return [await client.ask(session, name) for name in names]

    return asyncio.run(main())


def sessions(dsn: Dsn) -> int:
    """How many others are connected to the server."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"

    async def main() -> int:
        connection = await asyncpg.connect(dsn)
        try:
            return int(await connection.fetchval(query)) - 1
        finally:
            await connection.close()

    return asyncio.run(main())
