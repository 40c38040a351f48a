"""The stock of notebook 07: its table, a look at who waits for whom, and a meeting at one row."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg

import labkit as lab
from instruments.scratch_table import scratch_table

Request = Callable[[asyncpg.Pool], Awaitable[object]]


@asynccontextmanager
async def stock(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Keep `labkit.stock`, with a thousand of one item; yields the keeper's connection."""
    columns = "item integer, available integer, shipping integer"
    async with scratch_table(dsn, "stock", columns) as keeper:
        await keeper.execute("INSERT INTO labkit.stock VALUES (1, 1000, 0)")
        yield keeper


@asynccontextmanager
async def watching(
    load: lab.Load, observer: asyncpg.Connection, query: str, name: str
) -> AsyncIterator[list[asyncpg.Record]]:
    """Ask PostgreSQL fifty times a second who waits for whom, and gauge how many do.

    Args:
        load: Gets the gauges "idle in transaction" and "waiting for a lock".
        observer: The connection to ask on.
        query: What to ask. It returns a row for each session that idles in a transaction, or that
            waits for a lock and says in `waits_for` for which one; `$1` is the name.
        name: The `application_name` to ask about.

    Yields:
        The longest answer so far; the list changes while the load runs.
    """
    longest: list[asyncpg.Record] = []
    counts = {"idle in transaction": 0, "waiting for a lock": 0}

    async def watch() -> None:
        while True:
            rows = await observer.fetch(query, name)
            waiting = sum(bool(row["waits_for"]) for row in rows)
            counts["idle in transaction"] = len(rows) - waiting
            counts["waiting for a lock"] = waiting
            if len(rows) > len(longest):
                longest[:] = rows
            await asyncio.sleep(0.02)

    for state in counts:
        load.gauge(state, partial(counts.__getitem__, state))
    task = asyncio.create_task(watch())
    try:
        yield longest
    finally:
        task.cancel()
        await asyncio.wait([task])


async def meeting(
    dsn: str,
    shipment: Request,
    sent_back: Request,
    price: int,
    *,
    of_shipment: Mapping[str, str] | None = None,
    of_returns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Let a shipment meet five returns at the same row, and say what becomes of each.

    Args:
        dsn: Which server.
        shipment: Takes one of the item and adds the price to what shipping has cost.
        sent_back: Puts one of the item back. Where it returns "UPDATE 0", it has put none back.
        price: What the carrier asks for a shipment.
        of_shipment: Settings of the server's for the shipment's session.
        of_returns: The same for the sessions of the returns.

    Returns:
        Among others "half done": whether one write of the shipment is there without the other.
    """
    async with stock(dsn) as keeper:
        async with (
            asyncpg.create_pool(dsn, min_size=1, max_size=1, server_settings=of_shipment) as one,
            asyncpg.create_pool(dsn, min_size=5, max_size=5, server_settings=of_returns) as five,
        ):
            shipped = asyncio.create_task(_fate(shipment(one)))
            await _row_is_locked(keeper)
            returns = await asyncio.gather(*(_fate(sent_back(five)) for _ in range(5)))
            said, _ = await shipped
        _, available, shipping = await keeper.fetchrow("TABLE labkit.stock")
    served = [outcome for outcome, _ in returns].count("done")
    neither, both = (1000 + served, 0), (1000 + served - 1, price)  # of the shipment's writes
    return {
        "the shipment": said,
        "returns served, of 5": served,
        "the others": ", ".join({outcome for outcome, _ in returns} - {"done"}) or "-",
        "longest wait (ms)": max(took for _, took in returns),
        "half done": (available, shipping) not in (neither, both),
    }


async def _row_is_locked(keeper: asyncpg.Connection) -> None:
    for _ in range(10):  # and no longer: not every shipment takes a lock at once
        if not await keeper.fetch("SELECT FROM labkit.stock FOR UPDATE SKIP LOCKED"):
            return
        await asyncio.sleep(0.01)


async def _fate(request: Awaitable[object]) -> tuple[str, float]:
    """What became of a request, and how long it took (ms)."""
    began = time.perf_counter()
    try:
        said = "done" if await request != "UPDATE 0" else "UPDATE 0"
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = f"{type(error).__name__}: {error}"
    return said, 1e3 * (time.perf_counter() - began)
