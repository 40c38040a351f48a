"""`python -m labkit reset`: remove what the lab has made, once the user has agreed to it."""

import asyncio
from typing import Any

from labkit.errors import LabError
from labkit.server import Dsn, choose, embedded, session
from labkit.workbook.consent import agreed

# Whatever stands in the schema itself, and then whatever would go with it, near or far. PostgreSQL
# itself cannot be left to refuse: RESTRICT refuses what the lab has made, too, and CASCADE nothing.
CONTENTS = """
WITH RECURSIVE doomed AS (
    SELECT classid, objid, objsubid, true AS inside FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'labkit'::regnamespace
    UNION
    SELECT d.classid, d.objid, d.objsubid, false FROM pg_depend d JOIN doomed
        ON d.refclassid = doomed.classid AND d.refobjid = doomed.objid)
SELECT inside, objid, it.type, it.identity, concat_ws(' ', it.type, it.identity) AS name
    FROM doomed, pg_identify_object(classid, objid, objsubid) AS it
    WHERE inside OR it.schema NOT IN ('labkit', 'pg_toast')
        OR it.schema IS NULL AND it.identity !~ '(^|[ (])labkit\\.'
    ORDER BY inside DESC, it.type, it.identity
"""
SIZE = """
SELECT pg_size_pretty(pg_total_relation_size($1::oid)), has_table_privilege($1::oid, 'SELECT')
"""


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
    if (home := embedded.place()).exists():
        print(f"(The embedded server in {home} is another one. To remove that too, run this again")
        print("without DATABASE_URL, and with Compose's server down.)")
    return status


def _reset_embedded(which: str, yes: bool) -> int:
    home = embedded.place()
    print(f"The server: {which}, in {home}")
    if not home.exists():
        print("Nothing to remove: there is none.")
        return 0
    in_use = LabError(
        f"The private PostgreSQL in {home} is in use, and was left as it is. Expected that no "
        "notebook and no other program uses it. To do: shut down their kernels, run it again."
    )
    try:
        if embedded.is_used(home):
            raise in_use
        print("This stops it and deletes that directory, and nothing else.")
        if not agreed("Delete it?", yes):
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


def _reset_schema(dsn: Dsn, which: str, yes: bool) -> int:
    print(f"The server: {which}: {str(dsn).partition('?')[0]}")
    if not (shown := asyncio.run(_look(dsn))):
        print("Nothing to remove: there is no schema labkit.")
        return 0
    print("This drops, and nothing else:", *map("".join, shown.items()), sep="\n  ")
    if not agreed("Drop it?", yes):
        return 2
    asyncio.run(_drop(dsn, shown))
    print("Gone. Nothing of labkit is left in this database.")
    return 0


async def _look(dsn: Dsn) -> dict[str, str]:
    async with session(dsn) as connection:
        return await _contents(connection)


async def _drop(dsn: Dsn, shown: dict[str, str]) -> None:
    async with session(dsn) as connection:
        if new := (await _contents(connection)).keys() - shown.keys():
            raise LabError(
                f"The schema labkit was left as it is: {'; '.join(sorted(new))} came into it "
                "while you were asked. Expected what is listed above, and no more. "
                "To do: run this again, and read the new list."
            )
        await connection.execute("DROP SCHEMA IF EXISTS labkit CASCADE")


async def _contents(connection: Any) -> dict[str, str]:
    """Each thing that would go, and a remark; refuse if one that is not in the schema would."""
    await connection.execute("SET LOCAL lock_timeout = '5s'")
    if await connection.fetchval("SELECT to_regnamespace('labkit') IS NULL"):
        return {}
    found = await connection.fetch(CONTENTS)
    if others := [it["name"] for it in found if not it["inside"]]:
        raise LabError(
            "The schema labkit was left as it is: other people's things would go with it, namely "
            f"{'; '.join(others)}. Expected that nothing outside of it depends on it. "
            "To do: drop or change these yourself, and run this again."
        )
    remarks = {"schema labkit": ""}
    for it in found:
        remark = ""
        if it["type"] in ("table", "materialized view"):
            size, readable = await connection.fetchrow(SIZE, it["objid"])
            if readable:
                rows = await connection.fetchval(f"SELECT count(*) FROM {it['identity']}")
                remark += f", {rows:,} rows"
            remark += f", {size}"
        if it["identity"] == "labkit.orders":
            remark += ": the dataset"
        elif it["type"] != "type":
            remark += ": not the dataset; left by a notebook that was killed, or not labkit's"
        remarks[it["name"]] = remark
    return remarks
