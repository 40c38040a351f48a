"""Which PostgreSQL the lab works on, and the table of orders that it finds there."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from labkit.errors import LabError
from labkit.server.dataset import DATASET, ROWS, looks_right
from labkit.server.dsn import Dsn, read
from labkit.server.explain import MINIMUM_VERSION, explain

COMPOSE_PLACE = "127.0.0.1:54320"
COMPOSE_URL = f"postgresql://lab:lab@{COMPOSE_PLACE}/lab"  # as in docker-compose.yml
PATCHED = (
    "PostgreSQL was not asked: this process runs on an event loop patched by nest_asyncio, which "
    "on Python 3.14 and later does not find its own task. Expected asyncio as Python ships it. "
    "To do: remove nest_asyncio.apply() and restart the kernel."
)


def database() -> Dsn:
    """Return the URL of a PostgreSQL with the lab's dataset; print one line saying which and why.

    The first that applies: `DATABASE_URL`; the Compose server on 127.0.0.1:54320; a private one.
    The dataset, table `labkit.orders` of 200,000 rows, is made anew (about two seconds) where it is
    missing, or its columns, indexes or number of rows are not what they should be. labkit
    touches nothing but its schema `labkit`.

    Raises:
        LabError: The server cannot be reached or used; the text says why and what to do.
    """
    dsn, which = choose()
    if dsn is None:
        from labkit.server import embedded  # here, so that the probe needs no other library

        dsn = Dsn(embedded.start())
    version = _in_a_thread(lambda: _prepare(dsn))
    print(f"PostgreSQL {version}, {which}: {str(dsn).partition('?')[0]}, {ROWS:,} orders ready")
    return dsn


def choose() -> tuple[Dsn | None, str]:
    """Return the URL of the first server that applies (None: the private one), and why it."""
    if given := os.environ.get("DATABASE_URL", "").strip():
        return read(given), "from DATABASE_URL"
    if not (compose := _in_a_thread(_why_not_compose)):
        return Dsn(COMPOSE_URL), f"Compose (no DATABASE_URL, it answers on {COMPOSE_PLACE})"
    return None, f"embedded (no DATABASE_URL, {compose})"


def _in_a_thread(work: Callable[[], Coroutine[Any, Any, str | None]]) -> str | None:
    """Run it where no loop runs yet, on a loop that asyncpg can use; in a notebook, one runs."""

    async def main() -> str | None:
        if asyncio.current_task() is None:  # asyncio.timeout() would fail, and asyncpg with it
            raise LabError(PATCHED)
        return await work()

    def run() -> str | None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main())

    future = ThreadPoolExecutor(1).submit(run)
    while not wait([future], timeout=0.1).done:  # on Windows, the stop button waits for that long
        pass
    return future.result()


async def _why_not_compose() -> str | None:
    """None if the Compose server answers, else what was found in its place."""
    import asyncpg

    try:
        await (await asyncpg.connect(COMPOSE_URL, timeout=2)).close()
    except ConnectionRefusedError:
        return f"nothing on {COMPOSE_PLACE}"
    except asyncpg.InvalidAuthorizationSpecificationError:
        return f"another PostgreSQL on {COMPOSE_PLACE}, which refused user lab"
    except Exception:  # whatever it may be that answers
        return f"no PostgreSQL that is ready on {COMPOSE_PLACE}, though something listens"
    return None


@contextlib.asynccontextmanager
async def session(dsn: Dsn) -> AsyncIterator[Any]:
    """A connection to the server, in a transaction; a LabError says what went wrong with it."""
    import asyncpg
    from asyncpg import InterfaceError, InternalClientError, PostgresError

    wrong_url = ValueError, OverflowError
    try:
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=60)
        try:
            if connection.get_server_version().major < MINIMUM_VERSION:
                version = connection.get_settings().server_version
                raise asyncpg.FeatureNotSupportedError(f"PostgreSQL {version} is too old")
            async with connection.transaction():
                yield connection
        finally:
            await connection.close(timeout=5)
    except (OSError, *wrong_url, PostgresError, InterfaceError, InternalClientError) as error:
        raise LabError(explain(dsn, error)) from None


async def _prepare(dsn: Dsn) -> str:
    """Check the server and its dataset, make the dataset if need be; return the version."""
    async with session(dsn) as connection:
        # Two kernels at once: the second waits, then finds the dataset made.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('labkit.orders'))")
        if not await looks_right(connection):
            if await connection.fetchval("SELECT to_regnamespace('labkit') IS NULL"):
                await connection.execute("CREATE SCHEMA labkit")
            await connection.execute(DATASET)
        return str(connection.get_settings().server_version).split()[0]
