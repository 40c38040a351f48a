"""Which PostgreSQL the lab works on, and the table of orders that it finds there."""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar
from urllib.parse import urlsplit

from labkit.errors import LabError, Stopped

T = TypeVar("T")

MINIMUM_VERSION = 14
COMPOSE_PLACE = "127.0.0.1:54320"
COMPOSE_URL = f"postgresql://lab:lab@{COMPOSE_PLACE}/lab"  # as in docker-compose.yml
ROWS = 200_000

# In one transaction, so that it is there whole or not at all. Nothing random: everybody's
# table is the same, 200 orders for each of 1,000 customers.
DATASET = f"""
DROP TABLE IF EXISTS labkit.orders;
CREATE TABLE labkit.orders (
    id integer NOT NULL, customer integer NOT NULL, amount numeric(10,2) NOT NULL,
    note text NOT NULL, created_at timestamp with time zone NOT NULL);
INSERT INTO labkit.orders
    SELECT i, i::bigint * 7919 % 1000, (i::bigint * 104729 % 100000 + 100) / 100.0,
        'order ' || i || ' of batch ' || to_hex(i::bigint * 2654435761 % 4294967296),
        timestamptz '2025-01-01 00:00:00+00' + i * interval '37 seconds'
    FROM generate_series(1, {ROWS}) AS i;
ALTER TABLE labkit.orders ADD PRIMARY KEY (id);
CREATE INDEX orders_customer_idx ON labkit.orders (customer);
COMMENT ON TABLE labkit.orders IS 'labkit dataset 1';
ANALYZE labkit.orders;
"""
SHAPE_QUERY = """
SELECT concat_ws('; ', obj_description(t.oid, 'pg_class'),
    (SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', '
        ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped),
    (SELECT string_agg(pg_get_indexdef(indexrelid), ', ' ORDER BY indexrelid::regclass::text)
        FROM pg_index WHERE indrelid = t.oid AND indisvalid))
FROM (SELECT to_regclass('labkit.orders')::oid AS oid) AS t
"""
SHAPE = (
    "labkit dataset 1; id integer, customer integer, amount numeric(10,2), note text, "
    "created_at timestamp with time zone; "
    "CREATE INDEX orders_customer_idx ON labkit.orders USING btree (customer), "
    "CREATE UNIQUE INDEX orders_pkey ON labkit.orders USING btree (id)"
)
# Weighted by id, so that values swapped between rows are noticed too.
CONTENT_QUERY = """
SELECT concat_ws(' ', count(*), sum(id::bigint * customer), sum(id * amount),
    sum(id::bigint * length(note)), trim_scale(sum(id * extract(epoch FROM created_at))))
FROM labkit.orders
"""
CONTENT = "200000 9989943300000 10019766783000.00 593619704552 34812632975627900000"

UNREADABLE = (
    "DATABASE_URL is not the URL of a PostgreSQL. Expected "
    "postgresql://user:password@host:port/database, with a number for the port, and with "
    "any of @ : / ? # % in the password written as %40 %3A %2F %3F %23 %25. "
    "To do: set it so, or unset it to work on labkit's own server."
)


class Dsn(str):
    """A connection URL that hides its password from print, f-strings and the end of a cell.

    Drivers, `urllib.parse` and `pickle` get the real characters; `print(dsn)`, an f-string and
    the last line of a cell get `postgresql://lab:***@127.0.0.1:54320/lab`.

    Example:
        >>> Dsn("postgresql://lab:secret@localhost/lab")
        'postgresql://lab:***@localhost/lab'
    """

    __slots__ = ()

    def __str__(self) -> str:
        # Up to the last @, since people forget to encode one in a password.
        shown = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", self[:])
        return re.sub(r"(?i)\b((?:ssl)?password=)[^&\s]*", r"\1***", shown)

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> tuple[type["Dsn"], tuple[str]]:
        # The oldest pickle protocols would ask __str__.
        return Dsn, (self[:],)


def database() -> Dsn:
    """Return the URL of a PostgreSQL with the lab's dataset; print one line saying which and why.

    The first that applies: `DATABASE_URL`; the Compose server on 127.0.0.1:54320; a private one.
    The dataset, table `labkit.orders` of 200,000 rows, is checked, and made anew (about two
    seconds) where it is missing or differs. labkit touches nothing but its schema `labkit`.

    Works in a cell: it runs on an event loop of its own, in a thread of its own.

    Raises:
        LabError: The server cannot be reached or used; the text says why and what to do.
    """
    dsn, which = choose()
    if dsn is None:
        from labkit.server import embedded  # not at the top: it is also run as a program, `-m`

        dsn = Dsn(embedded.start())
    version = _in_a_thread(_prepare(dsn))
    print(f"PostgreSQL {version}, {which}: {str(dsn).partition('?')[0]}, {ROWS:,} orders ready")
    return dsn


def choose() -> tuple[Dsn | None, str]:
    """Return the URL of the first server that applies (None: the private one), and why it.

    Raises:
        LabError: `DATABASE_URL` is not the URL of a PostgreSQL.
    """
    if given := os.environ.get("DATABASE_URL", "").strip():
        if not _is_readable(given):
            raise LabError(UNREADABLE)
        return Dsn(given), "from DATABASE_URL"
    if not (compose := _in_a_thread(_why_not_compose())):
        return Dsn(COMPOSE_URL), f"Compose (no DATABASE_URL, it answers on {COMPOSE_PLACE})"
    return None, f"embedded (no DATABASE_URL, {compose})"


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Where there are several hosts, only drivers can read the ports.
        return parts.scheme in ("postgresql", "postgres") and ("," in url or parts.port != 0)
    except ValueError:
        return False


def _in_a_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine where no loop runs yet, even under nest_asyncio or another loop policy."""
    task: asyncio.Task[Any] | None = None

    async def main() -> T:
        nonlocal task
        task = asyncio.current_task()
        if task is None:  # so asyncio.timeout() would fail, and asyncpg with it
            coroutine.close()
            raise LabError(
                "PostgreSQL was not asked: this process runs on an event loop patched by "
                "nest_asyncio, which on Python 3.14 and later does not find its own task. "
                "Expected asyncio as Python ships it. "
                "To do: remove nest_asyncio.apply() and restart the kernel."
            )
        return await coroutine

    def run() -> T:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main())

    future = ThreadPoolExecutor(1, "labkit-database").submit(run)
    try:
        while not wait([future], timeout=0.1).done:
            pass
    except KeyboardInterrupt:
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                task.get_loop().call_soon_threadsafe(task.cancel)
        wait([future], timeout=1.5)
        raise Stopped("database() was stopped.") from None
    return future.result()


async def _why_not_compose() -> str | None:
    """None if the Compose server answers, else what was found in its place."""
    import asyncpg

    try:
        await (await asyncpg.connect(COMPOSE_URL, timeout=2)).close()
    except ConnectionRefusedError:
        return f"nothing on {COMPOSE_PLACE}"
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return f"another PostgreSQL on {COMPOSE_PLACE}, which refused user lab"
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return f"no PostgreSQL that is ready on {COMPOSE_PLACE}, though something listens"
    return None


@contextlib.asynccontextmanager
async def session(dsn: Dsn) -> AsyncIterator[Any]:
    """A connection to the server, in a transaction.

    Raises:
        LabError: It cannot be had, or what was done in it failed; the text says what to do.
    """
    import asyncpg
    from asyncpg import InterfaceError, InternalClientError, PostgresError

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
    except (OSError, ValueError, PostgresError, InterfaceError, InternalClientError) as error:
        raise LabError(explain(dsn, error)) from None


async def _prepare(dsn: Dsn) -> str:
    """Check the server and its dataset, make the dataset if need be; return the version."""
    async with session(dsn) as connection:
        # Two kernels at once: the second waits, then finds the dataset made.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('labkit.orders'))")
        if not await has_dataset(connection):
            if await connection.fetchval("SELECT to_regnamespace('labkit') IS NULL"):
                await connection.execute("CREATE SCHEMA labkit")
            await connection.execute(DATASET)
        return str(connection.get_settings().server_version).split()[0]


async def has_dataset(connection: Any) -> bool:
    """Whether the dataset has the columns, the indexes and the rows that it should."""
    if await connection.fetchval(SHAPE_QUERY) != SHAPE:
        return False  # in which case the other query may not even make sense
    return bool(await connection.fetchval(CONTENT_QUERY) == CONTENT)


def explain(dsn: Dsn, error: Exception) -> str:
    """What happened, what was expected and what to do, for an error met on a server."""
    import asyncpg

    place = urlsplit(str(dsn)).netloc.rpartition("@")[2] or "the default host"
    place += "" if re.search(r":\d+$", place) else ":5432"
    said = (str(error).splitlines() or ["no answer"])[0]
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            wanted, todo = "a user and password that it knows", "correct them in DATABASE_URL"
        case asyncpg.InvalidCatalogNameError():
            wanted, todo = "a database that exists", "create it, or correct its name"
        case asyncpg.InsufficientPrivilegeError():
            wanted = "a role that owns the schema labkit, or may make it where there is none"
            todo = "name that role, or let the database's owner run GRANT CREATE ON DATABASE … TO …"
        case asyncpg.LockNotAvailableError():
            return (
                "The schema labkit is in use, and was left as it is. Expected that nobody reads or "
                "writes it. To do: shut down the notebooks that use it, and run this again."
            )
        case asyncpg.DiskFullError():
            wanted, todo = "room for about 100 MB on the server's disk", "make room there"
        case asyncpg.TooManyConnectionsError():
            wanted, todo = "about 50 free connections", "close other programs', or raise the limit"
        case asyncpg.ReadOnlySQLTransactionError():
            wanted, todo = "a server and role that may write", "name such a one"
        case TimeoutError():
            wanted = "a connection within 10 s and each answer within 60 s"
            todo = "check host and port, and whether a session holds locks on labkit.orders"
        case socket.gaierror():
            wanted, todo = "a host name that resolves", "check its spelling and the network"
        case ConnectionError() if "rejected SSL" in said:
            wanted = "one that speaks SSL, since PGSSLMODE or the URL's sslmode asks for it"
            todo = "unset that, or set it to prefer"
        case OSError():
            wanted, todo = "a PostgreSQL that listens there", "start it, or correct host and port"
        case ValueError() if not isinstance(error, asyncpg.InterfaceError):
            return UNREADABLE  # not quoted: it may hold a piece of the password
        case _:
            wanted = f"PostgreSQL {MINIMUM_VERSION} or later, and a schema labkit of labkit's own"
            todo = "read the server's log, or name another server"
    if os.environ.get("DATABASE_URL", "").strip():
        todo += "; or unset DATABASE_URL to work on labkit's own server"
    return f"The server on {place} cannot be used: {said}. Expected {wanted}. To do: {todo}."
