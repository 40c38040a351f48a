"""How many queries a server answers, by the size of the pool. Notebook 05."""

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from time import perf_counter

import asyncpg
import pandas as pd

import labkit as lab

CLIENTS = 40


async def saturate(dsn: str, query: str, size: int, seconds: float) -> dict[str, float]:
    """Let 40 clients ask one query back to back, on a pool of this size.

    A closed loop: right where the question is how much can be answered, not how long one waits.
    Each client counts from its first answer to its last, so in whole queries. Otherwise those that
    are under way at the end would be missing: most, where many are under way.
    """
    log: list[tuple[int, float, float, float]] = []  # asked, got a connection, gave it back
    counts: list[int] = []  # every 10 ms, how many connections were in use
    answered: set[int] = set()
    holding, began = 0, inf

    async def client(number: int, pool: asyncpg.Pool) -> None:
        nonlocal holding, began
        while (asked := perf_counter()) < began + seconds:
            async with pool.acquire() as connection:
                got, holding = perf_counter(), holding + 1
                await connection.fetch(query)
            holding -= 1
            log.append((number, asked, got, perf_counter()))
            answered.add(number)
            if began == inf and len(answered) == CLIENTS:
                began = perf_counter()

    async def count() -> None:
        while (now := perf_counter()) < began + seconds:
            if now > began:
                counts.append(holding)
            await asyncio.sleep(0.01)

    async with asyncpg.create_pool(dsn, min_size=size, max_size=size) as pool:
        await asyncio.gather(count(), *(client(number, pool) for number in range(CLIENTS)))
    times = pd.DataFrame(log, columns=["client", "asked", "got", "back"])
    backs = times.groupby("client").back
    times = times[times.client.duplicated()]  # all but the first of each
    return {
        "per second": ((backs.count() - 1) / (backs.max() - backs.min())).sum(),
        "acquire (ms)": 1e3 * (times.got - times.asked).mean(),
        "held (ms)": 1e3 * (times.back - times.got).mean(),
        "busy, counted": sum(counts) / len(counts),
    }


async def sweep(
    dsn: str, queries: Mapping[str, str], sizes: Sequence[int], *, rounds: int = 2
) -> pd.DataFrame:
    """Saturate pools of several sizes, each for half a second, on loops of their own.

    All sizes are measured in each round, so a bad moment of the machine spoils one round only.

    Args:
        dsn: Which server.
        queries: What to ask, by name.
        sizes: How many connections the pools have.
        rounds: How often to measure all.

    Raises:
        LabError: The server has not so many connections.

    Returns:
        A row a measurement. Columns: the query, connections, round, per second, acquire (ms) and
        held (ms), both means, and busy, counted: how many connections were in use, on average.
    """
    rows = []
    for turn in range(rounds):
        for size in sizes:
            for name, query in queries.items():
                work = saturate(dsn, query, size, seconds=0.5)
                try:
                    figures = await asyncio.to_thread(asyncio.run, work)
                except asyncpg.TooManyConnectionsError as error:
                    raise lab.LabError(
                        f"There was no room for a pool of {size} connections: {error}. Expected "
                        "sizes that the server has connections for. To do: choose a smaller one."
                    ) from None
                rows.append({"the query": name, "connections": size, "round": turn} | figures)
    return pd.DataFrame(rows)
