"""What goes on in PostgreSQL while an answer runs, and what becomes of a call: for the checks.

`held` stops a call where it wants to write, so that one can look at it there, and by no clock.
`a_moment_until` gives what a call has left behind the time to end; `end_of` is how it ended.
`another_order` lets an order come in, so that an answer that remembers is out of date.
`rests_of` finds a connection that is in use, and not used.
`opened` notes the connections that are opened meanwhile.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from time import perf_counter
from typing import Any
from unittest.mock import patch

import asyncpg

from labkit.exercises import NotYet

MOMENT = 3.0  # s
WANTED = "SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted"
ORDER = 199_994  # of customer 486: no lesson's
READ = "SELECT customer, amount, created_at FROM labkit.orders WHERE id = $1"
IDLE = "SELECT pid, state_change FROM pg_stat_activity WHERE pid = ANY($1) AND state LIKE 'idle%'"
WRITE = "UPDATE labkit.orders SET customer = $2, created_at = $3 WHERE id = $1"

Call = asyncio.Future[Any]
Rests = defaultdict[tuple[int, datetime], list[float]]


@asynccontextmanager
async def held(
    keeper: asyncpg.Connection, table: str, go: Callable[[], Call]
) -> AsyncIterator[Call]:
    """Make a call and wait until it wants to write to a table; then the block runs.

    It waits for as long as that takes. Everybody can read the table meanwhile.

    Args:
        keeper: A connection that nobody else uses.
        table: The table's name, with its schema.
        go: Makes the call.
    """
    async with keeper.transaction():
        await keeper.execute(f"LOCK TABLE {table} IN SHARE MODE")
        call = go()
        while not call.done() and not await keeper.fetchval(WANTED, table):
            pass
        yield call


async def a_moment_until(so: Callable[[], bool]) -> None:
    """Wait until something is so, or for `MOMENT` seconds: what was shielded may still be ending.

    The loop's turns are counted, and not the time: where all is late, the moment is longer.
    """
    for _ in range(int(MOMENT / 0.02)):
        if so():
            return
        await asyncio.sleep(0.02)


def end_of(call: Call) -> object:
    """What a call that is over has returned, or raised. Raises NotYet if it was broken off."""
    if call.cancelled():
        return asyncio.CancelledError()
    if isinstance(error := call.exception(), NotYet):  # it would never have ended
        raise error
    return error or call.result()


def swallowed(call: Call, when: str) -> str:
    """What is wrong with the end of a call that was cancelled in the middle, or ""."""
    if isinstance(got := end_of(call), asyncio.CancelledError):
        return ""
    return (
        f"{when}, and your function ended with {got!r}. Expected CancelledError: let it through, "
        f"or raise it again when you have tidied up. Whoever cancels relies on it."
    )


@asynccontextmanager
async def another_order(
    dsn: str, customer: int, made_at: datetime, order: int = ORDER
) -> AsyncIterator[Any]:
    """Let one of the orders be this customer's, of this time, for as long as the block runs.

    So their number stays what it is. Two checks that want to do so take turns.

    Yields:
        The order's amount.
    """
    keeper = await asyncpg.connect(dsn, command_timeout=60)
    try:
        await keeper.execute(
            "SELECT pg_advisory_lock(hashtext('labkit: another order'), $1)", order
        )
        whose, amount, when = await keeper.fetchrow(READ, order)
        try:
            await keeper.execute(WRITE, order, customer, made_at)
            yield amount
        finally:
            await keeper.execute(WRITE, order, whose, when)
    finally:
        await keeper.close()


@asynccontextmanager
async def rests_of(
    pool: asyncpg.Pool, dsn: str, others: Callable[[], list[asyncpg.Connection]]
) -> AsyncIterator[Rests]:
    """Look whether connections that are in use are asked anything, for as long as the block runs.

    Each look asks PostgreSQL, on this loop: so between two of them, who has waited for a query
    goes on. But where all is late, PostgreSQL may not even have begun with the next one.

    Yields:
        When each rest was seen, of those borrowed from the pool and of the others that are open.
    """
    rests: Rests = defaultdict(list)

    async def keep_looking() -> None:
        while True:
            lent = [it._con for it in pool._holders if it._in_use and it._con]
            ids = [it.get_server_pid() for it in (*lent, *others()) if not it.is_closed()]
            for rest in await outside.fetch(IDLE, ids) if ids else ():
                rests[tuple(rest)].append(perf_counter())
            await asyncio.sleep(0.005)

    outside = await asyncpg.connect(dsn)
    looking = asyncio.create_task(keep_looking())
    try:
        yield rests
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        outside.terminate()


def longest(rests: Rests) -> float:
    """How long the longest rest was seen to last, in seconds, of those seen several times."""
    return max((seen[-1] - seen[0] for seen in rests.values() if len(seen) > 3), default=0.0)


def end_all(connections: list[asyncpg.Connection]) -> int:
    """End those that are open still, on their loop; return how many they were."""
    still_open = [connection for connection in connections if not connection.is_closed()]
    for connection in still_open:
        connection.terminate()
    return len(still_open)


@contextmanager
def opened(most: list[int] | None = None) -> Iterator[list[asyncpg.Connection]]:
    """The connections of asyncpg that are opened while the block runs, by whomever.

    `most` is told, at each of them, how many are open by then.
    """
    make, noted = asyncpg.Connection.__init__, list[asyncpg.Connection]()

    def note(connection: Any, *args: Any) -> None:
        make(connection, *args)
        noted.append(connection)
        if most is not None:
            most.append(sum(not each.is_closed() for each in noted))

    with patch.object(asyncpg.Connection, "__init__", note):
        yield noted
