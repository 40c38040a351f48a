"""Which PostgreSQL the lab works on, and the table of orders that it finds there."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from labkit.errors import LabError, Stopped
from labkit.server.dataset import DATASET, ROWS, looks_right, refuse_what_is_not_ours
from labkit.server.dsn import Dsn, read
from labkit.server.explain import MINIMUM_VERSION, explain
from labkit.server.needs import CONNECTIONS, check_needs, check_psycopg2
from labkit.server.programs import leave_out_settings

T = TypeVar("T")

COMPOSE_PLACE = "127.0.0.1:54320"
COMPOSE_URL = f"postgresql://lab:lab@{COMPOSE_PLACE}/lab"  # as in docker-compose.yml


def database() -> Dsn:
    """Return the URL of a PostgreSQL with the lab's dataset; print one line saying which and why.

    The first that applies: `DATABASE_URL`; the Compose server on 127.0.0.1:54320; a private one.
    The dataset, table `labkit.orders` of 200,000 rows, is made anew (about two seconds) where it is
    missing, or its columns, indexes or number of rows are not what they should be. labkit
    touches nothing but its schema `labkit`, and drops nothing there that is not its own.

    Works in a cell: it runs on an event loop of its own, in a thread of its own.

    Raises:
        LabError: The server cannot be reached or used; the text says why and what to do.
    """
    (dsn, which), home = choose(), None
    if dsn is None:
        from labkit.server import embedded  # here, so that the probe needs no other library

        dsn, home = Dsn(embedded.start()), embedded.place()
    version, place, free = _in_a_thread(_prepare(dsn, home))
    beware = ""
    if free < CONNECTIONS:  # no reason to refuse it: others may end theirs at any time
        beware = f" (beware: only {free} connections are free, and notebooks take up to "
        beware += f"{CONNECTIONS})"
    print(f"PostgreSQL {version}, {which}: {place}, {ROWS:,} orders ready{beware}")
    return dsn


def choose() -> tuple[Dsn | None, str]:
    """Return the URL of the first server that applies (None: the private one), and why it.

    On labkit's own, the PG* variables go out of the environment: they are for a server of yours.

    Raises:
        LabError: `DATABASE_URL` is not the URL of a PostgreSQL.
    """
    if given := os.environ.get("DATABASE_URL", "").strip():
        return read(given), "from DATABASE_URL"
    left_out = "".join(f"; {name} left out" for name in leave_out_settings())
    if not (compose := _in_a_thread(_why_not_compose())):
        why = f"it answers on {COMPOSE_PLACE}{left_out}"
        return Dsn(COMPOSE_URL), f"Compose (no DATABASE_URL, {why})"
    return None, f"embedded (no DATABASE_URL, {compose}{left_out})"


def _in_a_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine where no loop runs yet, even under nest_asyncio or another loop policy."""
    runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
    loop = runner.get_loop()

    async def main() -> T:
        if asyncio.current_task() is None:  # asyncio.timeout() would fail, and asyncpg with it
            coroutine.close()
            raise LabError(
                "PostgreSQL was not asked: this process runs on an event loop patched by "
                "nest_asyncio, which on Python 3.14 and later does not find its own task. "
                "Expected asyncio as Python ships it. "
                "To do: remove nest_asyncio.apply() and restart the kernel."
            )
        return await coroutine

    def run() -> T:
        with runner:
            return runner.run(main())

    future = ThreadPoolExecutor(1, "labkit-database").submit(run)
    try:
        while not wait([future], timeout=0.1).done:
            pass
    except KeyboardInterrupt:
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        wait([future], timeout=1.5)
        raise Stopped("database() was stopped.") from None
    return future.result()


async def _why_not_compose() -> str | None:
    """None if the Compose server answers, else what was found in its place."""
    import asyncpg
    from asyncpg import InterfaceError, InternalClientError, PostgresError

    try:
        await (await asyncpg.connect(COMPOSE_URL, timeout=2)).close()
    except ConnectionRefusedError:
        return f"nothing on {COMPOSE_PLACE}"
    except asyncpg.InvalidAuthorizationSpecificationError:
        return f"another PostgreSQL on {COMPOSE_PLACE}, which refused user lab"
    except TimeoutError:
        return f"{COMPOSE_PLACE} did not answer"
    except (OSError, PostgresError, InterfaceError, InternalClientError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return f"{COMPOSE_PLACE} cannot be used: {said}"
    return None


@contextlib.asynccontextmanager
async def session(dsn: Dsn, home: Path | None = None) -> AsyncIterator[Any]:
    """A connection to the server, in a transaction; if it is the private one, `home` is its place.

    Raises:
        LabError: It cannot be had, or what was done in it failed; the text says what to do.
    """
    import asyncpg
    from asyncpg import InterfaceError, InternalClientError, PostgresError

    try:
        connection = await _connect(dsn)
        try:
            if connection.get_server_version().major < MINIMUM_VERSION:
                version = connection.get_settings().server_version
                raise asyncpg.FeatureNotSupportedError(f"PostgreSQL {version} is too old")
            if await _is_lent(dsn, connection):
                raise asyncpg.FeatureNotSupportedError(
                    "a pooler there lends one session of PostgreSQL to several connections in turn"
                )
            async with connection.transaction():
                yield connection
        finally:
            await connection.close(timeout=5)
    except (OSError, ValueError, PostgresError, InterfaceError, InternalClientError) as error:
        raise LabError(explain(dsn, error, home)) from None


async def _connect(dsn: Dsn) -> Any:
    import asyncpg

    # Without names for statements, nothing stays in a session that a pooler keeps.
    return await asyncpg.connect(dsn, timeout=10, command_timeout=60, statement_cache_size=0)


async def _is_lent(dsn: Dsn, connection: Any) -> bool:
    """Whether a pooler gives away this connection's session, while the connection is open."""
    pid = "SELECT pg_backend_pid()"
    if await connection.fetchval(pid) == connection.get_server_pid():
        return False  # no pooler
    other = await _connect(dsn)
    try:
        both = connection, other
        # Five times, as somebody else's query may come between.
        seen = {tuple([await it.fetchval(pid, timeout=5) for it in both]) for _ in range(5)}
    finally:
        await other.close(timeout=5)
    return len({*chain(*seen)}) != 2 or len(seen) != 1


async def place_of(connection: Any) -> str:
    """Where a connection leads, as a URL without options, which need not stand in the URL."""
    to, at = connection._params, connection._addr
    database = await connection.fetchval("SELECT current_database()")
    login = f"{to.user}:***" if to.password else to.user
    if isinstance(at, str):  # a socket's file
        folder, _, port = at.rpartition("/.s.PGSQL.")
        return f"postgresql://{login}@/{database}?host={folder}&port={port}"
    host = f"[{at[0]}]" if ":" in at[0] else at[0]
    return f"postgresql://{login}@{host}:{at[1]}/{database}"


async def _prepare(dsn: Dsn, home: Path | None) -> tuple[str, str, int]:
    """Check the server and its dataset, make the dataset if need be.

    Returns its version, its place, and how many connections are free.
    """
    async with session(dsn, home) as connection:
        found = await check_needs(connection)
        check_psycopg2(dsn, found)  # before anything is made, in case they differ
        # Two kernels at once: the second waits, then finds the dataset made.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('labkit.orders'))")
        if not await looks_right(connection):
            await refuse_what_is_not_ours(connection, "labkit.orders")
            if await connection.fetchval("SELECT to_regnamespace('labkit') IS NULL"):
                await connection.execute("CREATE SCHEMA labkit")
            await connection.execute(DATASET)
        version = str(connection.get_settings().server_version).split()[0]
        return version, await place_of(connection), found["free"]
