"""What the notebooks need of a server and a role, besides the dataset: both drivers look."""

import os
from contextlib import closing
from typing import Any

from labkit.errors import LabError
from labkit.server.dsn import Dsn

CONNECTIONS, TIMEOUT_MS = 50, 10_000
# Only what every role may ask. Of a schema that is not there, the answer is NULL. A superuser's
# connections are not limited but by the server.
NEEDS = f"""
SELECT current_database()::text AS database, current_user::text AS role,
    to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')
        AS server_started,
    current_setting('transaction_read_only')::bool AS read_only,
    coalesce(has_schema_privilege(labkit, 'CREATE'),
        has_database_privilege(current_database(), 'CREATE')) AS tables,
    has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
    (SELECT string_agg(format('%s = %s', name, current_setting(name)), ', ') FROM pg_settings
        WHERE name ~ '^(statement|lock|transaction|idle_.*session)_timeout$'
            AND setting::int BETWEEN 1 AND {TIMEOUT_MS - 1}) AS timeouts,
    least(current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0)
            - (SELECT sum(numbackends) FROM pg_stat_database),
        (SELECT least(
            nullif(rolconnlimit, -1)
                - (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname),
            nullif(datconnlimit, -1)
                - (SELECT count(usesysid) FROM pg_stat_activity AS it  -- autovacuum has none
                    WHERE it.datname = here.datname))
            FROM pg_roles, pg_database AS here
            WHERE rolname = session_user AND here.datname = current_database()
                AND NOT rolsuper)) AS free
FROM CAST(to_regnamespace('labkit') AS oid) AS labkit
"""


async def check_needs(connection: Any) -> Any:
    """Return what asyncpg finds there, and how many connections are `free`, which may change.

    Raises:
        PostgresError: The first need that is not met, as the server itself would say it later.
    """
    import asyncpg

    row = await connection.fetchrow(NEEDS)
    if row["read_only"]:
        raise asyncpg.ReadOnlySQLTransactionError("transactions may only read there")
    if not row["tables"]:
        raise asyncpg.InsufficientPrivilegeError("this role may not make tables there")
    if not row["temporary"]:
        raise asyncpg.InsufficientPrivilegeError("this role may not make temporary tables there")
    if row["timeouts"]:
        raise asyncpg.QueryCanceledError(f"it ends what takes long ({row['timeouts']})")
    return row


def check_psycopg2(dsn: Dsn, found: Any) -> None:
    """See whether psycopg2, too, can connect to a server of the user's, and finds the same there.

    They differ in the options and the PG* variables that they take. `found` is what asyncpg finds.

    Raises:
        LabError: It does not. libpq's own words are not quoted: they may hold the password.
    """
    if not os.environ.get("DATABASE_URL", "").strip():  # on labkit's own, there are none of these
        return
    import psycopg2  # here, so that the probe and the doctor need no other library

    try:
        with closing(psycopg2.connect(dsn, connect_timeout=10)) as it, it.cursor() as cursor:
            cursor.execute(NEEDS)
            also = zip(found.items(), cursor.fetchone(), strict=True)
    except psycopg2.Error:
        raise LabError(
            "psycopg2 cannot connect to the server in DATABASE_URL, though asyncpg can, and the "
            "notebooks use both. Expected options in the URL, and PG… environment variables, that "
            "suit both. To do: see what `psql` says to this URL: it connects as psycopg2 does; "
            "write what is a setting of the server's as options=-c%20NAME%3DVALUE; or unset "
            "DATABASE_URL to work on labkit's own server."
        ) from None
    differ = [
        f"{name} is {ours} for asyncpg, and {its} for psycopg2"
        for (name, ours), its in also
        if ours != its and name != "free"
    ]
    if differ:
        raise LabError(
            "DATABASE_URL means one thing to asyncpg and another to psycopg2, and the notebooks "
            f"use both: {'; '.join(differ)}. Expected no difference. To do: write host, port, user "
            "and database once, before any ? in the URL; unset the PG… environment variables; or "
            "unset DATABASE_URL to work on labkit's own server."
        )
