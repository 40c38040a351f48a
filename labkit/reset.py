"""`python -m labkit reset`: remove what the lab has made, once the user has agreed to it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from labkit import embedded
from labkit.database import Dsn, choose, explain
from labkit.errors import LabError

T = TypeVar("T")

# Whatever stands in the schema itself, and then whatever would go with it, near or far.
CONTENTS = """
WITH RECURSIVE doomed AS (
    SELECT classid, objid, objsubid, true AS inside FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'labkit'::regnamespace
    UNION
    SELECT d.classid, d.objid, d.objsubid, false FROM pg_depend d JOIN doomed
        ON d.refclassid = doomed.classid AND d.refobjid = doomed.objid)
SELECT inside, objid, it.type, it.identity
    FROM doomed, pg_identify_object(classid, objid, objsubid) AS it
    WHERE inside OR it.schema NOT IN ('labkit', 'pg_toast')
        OR it.schema IS NULL AND it.identity !~ '(^|[ (])labkit\\.'
    ORDER BY inside DESC, it.type, it.identity
"""
SIZE = """
SELECT pg_size_pretty(pg_total_relation_size($1::oid)), has_table_privilege($1::oid, 'SELECT')
"""
KINDS_WITH_ROWS = ("table", "materialized view")


def reset(yes: bool) -> int:
    """Remove what the lab has made on the server that `lab.database()` would take.

    On a server of the user's, or Compose's, that is the schema `labkit`; of the private server,
    all of it. Says first what will go, and asks.

    Args:
        yes: Do not ask.

    Returns:
        0: it is gone, or there was nothing; 2: the user said no.

    Raises:
        LabError: It cannot be done, or nobody is there to ask.
    """
    dsn, which = choose()
    if dsn is None:
        return _reset_embedded(which, yes)
    status = _reset_schema(dsn, which, yes)
    if embedded.belongings(home := embedded.place()):
        print(f"(The embedded server in {home} is another one. To remove that too, run this again")
        print("without DATABASE_URL, and with Compose's server down.)")
    return status


def _agreed(question: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise LabError(
            "Nothing was removed: there is nobody to ask. Expected a terminal, or consent given "
            "in advance. To do: run `python -m labkit reset` in a terminal, or add --yes."
        )
    with contextlib.suppress(EOFError):
        if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
            return True
    print("Nothing was removed.")
    return False


def _reset_embedded(which: str, yes: bool) -> int:
    home = embedded.place()
    print(f"The server: {which}, in {home}")
    try:
        if not (mine := embedded.belongings(home)):
            print("Nothing to remove: there is none.")
            return 0
        in_use = LabError(
            f"The private PostgreSQL in {home} is in use, and was left as it is. Expected that no "
            "notebook and no other program uses it. To do: shut down their kernels, run it again."
        )
        if embedded.is_used(home):
            raise in_use
        size = sum(map(_size, mine)) / 2**20
        print(*mine, sep="\n")
        print(f"This stops it and deletes its data, {size:,.0f} MB, and nothing else.")
        if not _agreed("Delete it?", yes):
            return 2
        if not embedded.remove(home):
            raise in_use
    except OSError as error:
        raise LabError(
            f"What labkit keeps in {home} cannot be deleted: {error}. Expected a directory of "
            "your own. To do: run this as the user who ran the notebooks."
        ) from None
    print("Gone. The next notebook makes a new one.")
    return 0


def _size(directory: Path) -> int:
    """Bytes in it; a server that is just being stopped deletes some files meanwhile."""
    size = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _reset_schema(dsn: Dsn, which: str, yes: bool) -> int:
    print(f"The server: {which}: {str(dsn).partition('?')[0]}")
    if not (contents := asyncio.run(_on(dsn, _look))):
        print("Nothing to remove: there is no schema labkit.")
        return 0
    print("This drops, and nothing else:", *contents, sep="\n  ")
    if not _agreed("Drop it?", yes):
        return 2
    asyncio.run(_on(dsn, _drop))
    print("Gone. Nothing of labkit is left in this database.")
    return 0


async def _on(dsn: Dsn, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Do some work on a connection to the server; say in words what goes wrong."""
    import asyncpg

    try:
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=60)
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '5s'")
                return await work(connection)
        finally:
            await connection.close(timeout=5)
    except asyncpg.LockNotAvailableError:
        raise LabError(
            "The schema labkit is in use, and was left as it is. Expected that nobody reads or "
            "writes it. To do: shut down the notebooks that use it, and run this again."
        ) from None
    except (
        OSError,
        ValueError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ) as error:
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise LabError(
                f"The schema labkit was left as it is: {error}. Expected the role that owns it. "
                "To do: name that role in DATABASE_URL."
            ) from None
        raise LabError(explain(dsn, error)) from None


async def _look(connection: Any) -> list[str]:
    """What would go, in words; refuse if something that is not in the schema would go as well."""
    if await connection.fetchval("SELECT to_regnamespace('labkit') IS NULL"):
        return []
    found = await connection.fetch(CONTENTS)
    if others := [f"{it['type']} {it['identity']}" for it in found if not it["inside"]]:
        raise LabError(
            "The schema labkit was left as it is: other people's things would go with it, namely "
            f"{'; '.join(others)}. Expected that nothing outside of it depends on it. "
            "To do: drop or change these yourself, and run this again."
        )
    lines = ["schema labkit"]
    for it in found:
        lines.append(f"{it['type']} {it['identity']}")
        if it["type"] in KINDS_WITH_ROWS:
            size, readable = await connection.fetchrow(SIZE, it["objid"])
            if readable:
                rows = await connection.fetchval(f"SELECT count(*) FROM {it['identity']}")
                lines[-1] += f", {rows:,} rows"
            lines[-1] += f", {size}"
        if it["identity"] == "labkit.orders":
            lines[-1] += ": the dataset"
        elif it["type"] != "type":
            lines[-1] += ": not the dataset; left by a notebook that was killed, or not labkit's"
    return lines


async def _drop(connection: Any) -> None:
    await _look(connection)  # somebody may have come to depend on it meanwhile
    await connection.execute("DROP SCHEMA labkit CASCADE")
