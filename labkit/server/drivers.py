"""The workbook's other driver: whether psycopg2 can connect to the user's server, too."""

import os
from urllib.parse import urlsplit

from labkit.errors import LabError
from labkit.server.dsn import Dsn


def check_psycopg2(dsn: Dsn) -> None:
    """See whether psycopg2 can connect to a server of the user's, where asyncpg just could.

    They differ in the options and the PG* variables that they take. labkit's own servers need no
    check: there are no options, and the variables were left out.

    Raises:
        LabError: It cannot. libpq's own words are not quoted: they may hold the password.
    """
    if not os.environ.get("DATABASE_URL", "").strip():
        return
    import psycopg2  # here, so that the probe and the doctor need no other library

    try:
        psycopg2.connect(dsn, connect_timeout=10).close()
    except psycopg2.Error:
        names = [option.partition("=")[0] for option in urlsplit(dsn[:]).query.split("&")]
        foreign = ", ".join(name for name in names if name and not _takes(name))
        settings = ", ".join(name for name in sorted(os.environ) if name.startswith("PG"))
        todo = "see what `psql` says to this URL: it connects as psycopg2 does"
        if foreign:
            todo = f"take {foreign} out of the URL; what is a setting of the server's can be "
            todo += "written as options=-c%20NAME%3DVALUE, which both take"
        elif settings:
            todo = f"correct or unset what psycopg2 takes from the environment: {settings}"
        raise LabError(
            "psycopg2 cannot connect to the server in DATABASE_URL, though asyncpg can, and the "
            "notebooks use both. Expected options in the URL, and PG… environment variables, that "
            f"suit both. To do: {todo}; or unset DATABASE_URL to work on labkit's own server."
        ) from None


def _takes(option: str) -> bool:
    """Whether psycopg2 knows an option of this name."""
    from psycopg2 import Error
    from psycopg2.extensions import parse_dsn

    try:
        return bool(parse_dsn(f"{option}=1"))
    except Error:
        return False
