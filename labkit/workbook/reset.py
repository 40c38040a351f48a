"""`python -m labkit reset`: remove what the lab has made, once the user has agreed to it."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import LabError
from labkit.exercises import progress
from labkit.server import Dsn, choose, embedded, place_of, session
from labkit.server.dataset import OURS_QUERY

# What labkit.server makes in its directory, with what earlier versions of it left.
OURS = r"\w+\.lock|running\.json|server|(binaries|new)-.*"
# What stands in the schema itself, then what would go with it. DROP … RESTRICT refuses too little:
# a partition of a table in the schema, or statistics on one, would go without a word.
CONTENTS = """
WITH RECURSIVE doomed AS (
    SELECT classid, objid, objsubid, true AS inside FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('labkit')
    UNION
    SELECT d.classid, d.objid, d.objsubid, false FROM pg_depend d JOIN doomed
        ON d.refclassid = doomed.classid AND d.refobjid = doomed.objid)
SELECT inside, concat_ws(' ', it.type, it.identity) AS name
    FROM doomed, pg_identify_object(classid, objid, objsubid) AS it
    WHERE inside OR it.schema NOT IN ('labkit', 'pg_toast')
        OR it.schema IS NULL AND it.identity !~ '(^|[ (])labkit\\.'
    ORDER BY it.type, it.identity
"""


def reset(exercises: Sequence[str] | None, yes: bool) -> None:
    """Remove what the lab has made on the server that `lab.database()` would take.

    On a server of the user's, or Compose's, that is the schema `labkit`; of the private server,
    all of it. Says first what will go, and asks.

    Args:
        exercises: Forget what became of these instead; of all, if it names none.
        yes: Do not ask.

    Raises:
        LabError: It cannot be done, or the user did not say yes.
    """
    if exercises is not None:
        _forget(exercises, yes)
        return
    dsn, which = choose()
    home = embedded.place()
    if dsn is None:
        print(f"The server: {which}, in {home}")
        _remove(home, yes)
        return
    _drop(dsn, which, yes)
    if home.exists():
        print(f"(The embedded server in {home} is another one. To remove that too, run this again")
        print("without DATABASE_URL, and with Compose's server down.)")


def _agree(question: str, yes: bool) -> None:
    """Ask the user, unless they have agreed in advance; raise if they do not agree."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise LabError(
            "Nothing was changed: there is nobody to ask. Expected a terminal, or consent given "
            "in advance. To do: run the same command in a terminal, or add --yes."
        )
    answer = ""
    with contextlib.suppress(EOFError):
        answer = input(f"{question} [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise LabError("Nothing was changed.")


def _forget(names: Sequence[str], yes: bool) -> None:
    place, entries = progress.place(), progress.read()
    known = progress.EXERCISES
    if unknown := ", ".join(name for name in names if name not in {*known, *entries}):
        raise LabError(f"There is no exercise {unknown}. Expected some of: {', '.join(known)}.")
    gone = sorted(name for name in entries if not names or name in names)
    if not gone:
        print("Nothing to forget: none of them was tried.")
        return
    print(f"This forgets what became of {', '.join(gone)}. Your answers in the notebooks stay.")
    _agree("Forget it?", yes)
    for name in gone:
        (place / name).unlink(missing_ok=True)
    print("Forgotten.")


def _remove(home: Path, yes: bool) -> None:
    if not home.exists():
        print("Nothing to remove: there is none.")
        return
    if others := sorted(it.name for it in home.iterdir() if not re.fullmatch(OURS, it.name)):
        raise LabError(
            f"{home} was left as it is: it holds {', '.join(others[:5])}, which is not labkit's. "
            "Expected only the private server. To do: move that elsewhere, and run this again."
        )
    print("This stops it and deletes that directory, and nothing else.")
    _agree("Delete it?", yes)
    if not embedded.remove(home):
        raise LabError(
            f"The private PostgreSQL in {home} is in use, and was left as it is. Expected that "
            "nobody uses it. To do: shut down the notebooks' kernels, and run this again."
        )
    print("Gone. The next notebook makes a new one.")


def _drop(dsn: Dsn, which: str, yes: bool) -> None:
    shown, ours = asyncio.run(_contents(dsn, which))
    if not shown:
        print("Nothing to remove: there is no schema labkit.")
        return
    print("This drops, and nothing else:", *shown, sep="\n  ")
    if ours:
        print("(Of these, labkit.orders is the dataset. Other tables may not be labkit's.)")
    elif any(name.startswith("table ") for name in shown):
        print("(The dataset is not among these. The tables may not be labkit's.)")
    _agree("Drop it?", yes)
    asyncio.run(_contents(dsn, which, drop=shown))
    print("Gone. Nothing of labkit is left in this database.")


async def _contents(dsn: Dsn, which: str, drop: Sequence[str] = ()) -> tuple[list[str], bool]:
    """Name the schema and what is in it; drop that, if it is no more than these.

    Returns the names, and whether labkit.orders is labkit's.

    Raises:
        LabError: There is more now, or things outside of the schema would go with it.
    """
    async with session(dsn) as connection:
        if not drop:
            print(f"The server: {which}: {await place_of(connection)}")
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        if await connection.fetchval("SELECT to_regnamespace('labkit') IS NULL"):
            return [], False
        found = await connection.fetch(CONTENTS)
        if others := [it["name"] for it in found if not it["inside"]]:
            raise LabError(
                "The schema labkit was left as it is: other people's things would go with it, "
                f"namely {'; '.join(others)}. Expected that nothing outside of it depends on it. "
                "To do: drop or change these yourself, and run this again."
            )
        ours = await connection.fetchval(OURS_QUERY, "labkit.orders")
        names = ["schema labkit", *(it["name"] for it in found)]
        if drop and (new := [name for name in names if name not in drop]):
            raise LabError(
                f"The schema labkit was left as it is: {'; '.join(new)} came into it while you "
                "were asked. To do: run this again, and read the new list."
            )
        if drop:
            await connection.execute("DROP SCHEMA IF EXISTS labkit CASCADE")
        return names, bool(ours)
