"""A pool made on one loop and used on another. Notebook 07 runs it in a process of its own."""

import asyncio
import json
import logging
import os
import re
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

import asyncpg

SIZE = 3


async def open_pool() -> asyncpg.Pool:
    """As many a service does it: before the web server has started its loop."""
    return await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=SIZE, max_size=SIZE)


async def serve(pool: asyncpg.Pool, requests: int) -> list[dict[str, object]]:
    """A few requests, one after the other, and what becomes of each."""
    seen = []
    for _ in range(requests):
        began, error, context = perf_counter(), "", ""
        try:
            async with asyncio.timeout(0.3):
                await pool.fetchval("SELECT 1")
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}".rstrip(": ")
            context = f"{type(caught.__context__).__name__}: {caught.__context__}".rstrip(": ")
            context = re.sub("<.*>", "…", context)  # which task, which future
        row = {"error": error, "its __context__": context, "after (s)": perf_counter() - began}
        seen.append(row)
    return seen


async def repaired(requests: int) -> list[dict[str, object]]:
    """The pool is made where it is used: in a web service, in its start-up hook."""
    async with await open_pool() as pool:
        return await serve(pool, requests)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, on the same kind of loop on every platform."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(coroutine)


def main() -> None:
    """Two runs are two loops."""
    logging.disable()  # asyncio reports the abandoned connections, at length
    pool = run(open_pool())
    another = run(serve(pool, SIZE + 2))
    print(json.dumps({"on another loop": another, "on the same loop": run(repaired(SIZE + 2))}))


if __name__ == "__main__":
    main()
