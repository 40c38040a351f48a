"""What went wrong on a server, in words: what happened, what was expected, what to do."""

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from labkit.server.dsn import UNREADABLE, Dsn

MINIMUM_VERSION = 14
IN_USE = (
    "The schema labkit is in use, and was left as it is. Expected that nobody reads or writes it. "
    "To do: shut down the notebooks that use it, and run this again."
)
# What was expected, and what to do. The first row counts whose pattern is found in the error's
# SQLSTATE (where it has none, the names of its classes) and text.
REMEDIES = {
    "^28000.*pg_hba": "that its pg_hba.conf lets in this user, from this address, to this "
    "database. To do: ask its administrator for such a line; or, where it says no encryption, "
    "write sslmode=require into the URL",
    "^28000.*not permitted to log in": "a role that may log in. To do: let the server's "
    "administrator run ALTER ROLE … LOGIN, or name another role",
    "^28000|^28P01|^08P01.*authentication failed": "a user and password that it "
    "knows. To do: correct them in DATABASE_URL",
    "^3D000": "a database that exists. To do: create it, or correct its name",
    "^42501.*temporary": "a role that may make them. To do: let the database's owner run GRANT "
    "TEMPORARY ON DATABASE … TO …",
    "^42501": "a role that owns the schema labkit, or may make it where there is none. To do: name "
    "that role, or let the database's owner run GRANT CREATE ON DATABASE … TO …",
    "^53100": "room for about 100 MB on the server's disk. To do: make room there",
    "^53300": "about 50 free connections. To do: close those of other programs, or raise the limit",
    "^25006": "a server and role that may write. To do: name such a one",
    "^57014|^25P0[34]|^57P05": "10 s for each statement and transaction, or no limit. To do: run "
    "ALTER ROLE … SET, for each of these timeouts, TO 0; or take them out of the URL's options, or "
    "name another role",
    "^2BP01": "that nothing depends on labkit.orders, which must be made anew. To do: drop or "
    "change what does",
    "^42809|^42P07|^42710": "a schema labkit in which the names of labkit's table orders and its "
    "indexes are free, or labkit's. To do: rename what has them, or name another database",
    "accepting connections": "a database that lets in connections. To do: let its owner run "
    "ALTER DATABASE … ALLOW_CONNECTIONS true, or name another database",
    "TargetServerAttribute": "a server that is as target_session_attrs asks. To do: name one, or "
    "take that out of the URL and of PGTARGETSESSIONATTRS",
    "startup parameter": "none of the URL's options, as a pooler takes few. To do: take them out "
    "(ALTER ROLE … SET does the same); or write the server's own host and port into DATABASE_URL",
    "^42P05|^26000|pooling mode|a pooler there": "the server itself, or a pooler in "
    "session mode, since notebooks keep locks, settings and prepared statements. To do: write the "
    "server's own host and port into DATABASE_URL",
    "(ConnectionError|^08|^57P0[123]).* own$": "that it runs. To do: run this again, as it starts "
    "by itself",
    "^57P0[123]": "one that has started, and is not stopping. To do: wait, and run this again",
    "ClientConfiguration.*root certificate": "the certificate of the authority that the server's "
    "is verified by. To do: put it there, or name it by sslrootcert=FILE; or write sslmode=require",
    "ClientConfiguration|^42704|^22023|^55P02": "options that asyncpg and the server know, with "
    "values that they take. To do: correct the part of the URL after ?, and the PG… environment "
    "variables",
    "SSLCertVerification": "a certificate that can be verified, for the host named in the URL. "
    "To do: name the authority's certificate by sslrootcert=FILE, and the host as in the "
    "certificate; or, where it need not be verified, write sslmode=require without any root "
    "certificate",
    "SSLError": "a server that speaks the same TLS, and accepts this client's certificate. "
    "To do: compare the ssl… options of the URL with the server's log",
    "TimeoutError": "a connection, and each answer, in time. To do: check host and "
    "port, and whether a session holds locks on labkit.orders",
    "gaierror": "a host name that resolves. To do: check its spelling and the network",
    "rejected SSL.* sslmode=(require|verify)": "one that speaks SSL, since PGSSLMODE or the "
    "URL's sslmode asks for it. To do: unset that, or set it to prefer",
    "OSError": "a PostgreSQL that listens there. To do: start it, or correct host and port",
    "": f"PostgreSQL {MINIMUM_VERSION} or later, and a schema labkit of labkit's own. "
    "To do: read the server's log, or name another server",
}


def explain(dsn: Dsn, error: Exception, home: Path | None = None) -> str:
    """What happened, what was expected and what to do, for an error met on a server.

    If it is the private one, `home` is its directory.
    """
    from asyncpg import DependentObjectsStillExistError, InterfaceError, LockNotAvailableError

    if isinstance(error, ValueError) and not isinstance(error, OSError | InterfaceError):
        return UNREADABLE  # not quoted: it may hold a piece of the password
    if isinstance(error, LockNotAvailableError):
        return IN_USE
    said = (str(error).splitlines() or ["no answer"])[0]
    if isinstance(error, DependentObjectsStillExistError):
        said += f": {error.detail}".replace("\n", "; ")
    kind = getattr(error, "sqlstate", None) or f"{type(error).__mro__}"
    options = {key: values[-1] for key, values in parse_qs(urlsplit(dsn[:]).query).items()}
    ssl = options.get("sslmode") or os.environ.get("PGSSLMODE")
    known = f"{kind}: {said} sslmode={ssl}{' own' if home else ''}"
    todo = next(todo for row, todo in REMEDIES.items() if re.search(row, known))
    for name in "sslcert", "sslkey", "sslrootcert", "sslcrl":
        file = options.get(name) or os.environ.get(f"PG{name.upper()}")
        if file and isinstance(error, OSError) and not os.access(file, os.R_OK):
            todo = f"that {name}={file} can be read. To do: correct it, or take it out of the URL"
    if os.environ.get("DATABASE_URL", "").strip():
        todo += "; or unset DATABASE_URL to work on labkit's own server"
    # Host and port, which asyncpg looks for in this order.
    hosts = urlsplit(dsn[:]).netloc.rpartition("@")[2] or options.get("host")
    place = hosts or os.environ.get("PGHOST") or "the default host"
    if not re.search(r":\d+$", place):
        place += f":{options.get('port') or os.environ.get('PGPORT') or '5432'}"
    place += f", labkit's own in {home} (LABKIT_HOME moves it)," if home else ""
    return f"The server on {place} cannot be used: {said}. Expected {todo}."
