"""Places to hang in, for notebook 02: which limit ends a call that would take too long?"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

import asyncpg
import pandas as pd

Calls = list[tuple[str, str, Awaitable[object]]]  # where it hangs, the limit, the call


async def try_limits(
    calls: Callable[[asyncpg.Pool, asyncpg.Pool, Mapping[str, Any]], Calls],
    dsn: str,
    *,
    hang: float,
    command_timeout: float,
) -> pd.DataFrame:
    """Make all the calls at once, and see what becomes of each.

    Args:
        calls: Returns them. It is given a pool of three connections, a pool whose only connection
            is out, and the address of a server that accepts a connection and then says nothing
            (as arguments of `asyncpg.connect`).
        dsn: Where the pools connect to.
        hang: For how long (s) the connection is out, and the silent server stays.
        command_timeout: Of both pools (s).

    Returns:
        A row a call. Columns: where it hangs, the limit, outcome, after (s).
    """

    async def timed(where: str, limit: str, call: Awaitable[object]) -> tuple[object, ...]:
        began, outcome = perf_counter(), "went through"
        try:
            await call
        except (OSError, asyncpg.ConnectionDoesNotExistError) as error:
            outcome = type(error).__name__  # a TimeoutError, or a connection that was cut
        return where, limit, outcome, perf_counter() - began

    def pool_of(size: int) -> Any:
        settings = {"min_size": size, "max_size": size, "command_timeout": command_timeout}
        return asyncpg.create_pool(dsn, **settings)

    async with pool_of(3) as free, pool_of(1) as busy, asyncio.TaskGroup() as tasks:
        with socket.create_server(("127.0.0.1", 0)) as server:
            silent = {"host": "127.0.0.1", "port": server.getsockname()[1], "user": "lab"}
            async with busy.acquire():
                hanging = [tasks.create_task(timed(*call)) for call in calls(free, busy, silent)]
                await asyncio.sleep(hang)
    columns = ["where it hangs", "the limit", "outcome", "after (s)"]
    return pd.DataFrame([task.result() for task in hanging], columns=columns)
