"""A table for one measurement. It is gone afterwards, whatever happened to the measurement."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from labkit.server.dataset import refuse_what_is_not_ours


@asynccontextmanager
async def scratch_table(dsn: str, name: str, columns: str) -> AsyncIterator[asyncpg.Connection]:
    """Keep an empty table `labkit.NAME` for as long as the block runs.

    Two notebooks that want the same name take turns: a lock of PostgreSQL's, which ends with the
    connection that holds it. Close every other connection that used the table inside the block.

    Args:
        dsn: Which server.
        name: What to call the table, inside the schema `labkit`.
        columns: As in CREATE TABLE.

    Raises:
        LabError: There is such a table, and it is not labkit's.

    Yields:
        The connection that keeps the table; good for a look at what is in it.
    """
    keeper = await asyncpg.connect(dsn, command_timeout=60)
    try:
        await keeper.execute("SELECT pg_advisory_lock(hashtext($1))", f"labkit.{name}")
        await refuse_what_is_not_ours(keeper, f"labkit.{name}")
        # All or nothing, so that it is never there without the comment that says whose it is.
        await keeper.execute(
            f"DROP TABLE IF EXISTS labkit.{name}; CREATE TABLE labkit.{name} ({columns}); "
            f"COMMENT ON TABLE labkit.{name} IS 'labkit scratch table'"
        )
        try:
            yield keeper
        finally:
            await keeper.execute(f"DROP TABLE labkit.{name}")
    finally:
        await keeper.close()
