"""What went wrong on a server, in words: what happened, what was expected, what to do."""

import os
import ssl
from pathlib import Path
from socket import gaierror
from urllib.parse import parse_qs, urlsplit

from labkit.server.dsn import UNREADABLE, Dsn

MINIMUM_VERSION = 14


def explain(dsn: Dsn, error: Exception) -> str:
    """What happened, what was expected and what to do, for an error met on a server."""
    import asyncpg

    said = (str(error).splitlines() or ["no answer"])[0]
    match error:
        case asyncpg.LockNotAvailableError():
            return (
                "The schema labkit is in use, and was left as it is. Expected that nobody reads or "
                "writes it. To do: shut down the notebooks that use it, and run this again."
            )
        case ValueError() if not isinstance(error, asyncpg.InterfaceError | ssl.SSLError):
            return UNREADABLE  # not quoted: it may hold a piece of the password
        case OSError():
            wanted, todo = _of_the_connection(dsn, error, said)
        case _:
            wanted, todo = _of_the_server(error, said)
    if os.environ.get("DATABASE_URL", "").strip():
        todo += "; or unset DATABASE_URL to work on labkit's own server"
    return f"The server on {_place(dsn)} cannot be used: {said}. Expected {wanted}. To do: {todo}."


def _of_the_connection(dsn: Dsn, error: OSError, said: str) -> tuple[str, str]:
    if missing := _unreadable_file(dsn):
        return f"that {missing} can be read", "correct its name, or take it out of the URL"
    match error:
        case ssl.SSLCertVerificationError():
            wanted = "a certificate that can be verified, for the host named in the URL"
            todo = "name the authority's certificate by sslrootcert=FILE, and the host as in the "
            todo += "certificate; or, where it need not be verified, write sslmode=require without "
            todo += "any root certificate"
        case ssl.SSLError():
            wanted = "a server that speaks the same TLS, and accepts this client's certificate"
            todo = "compare the ssl… options of the URL with the server's log"
        case TimeoutError():
            wanted = "a connection within 10 s and each answer within 60 s"
            todo = "check host and port, and whether a session holds locks on labkit.orders"
        case gaierror():
            wanted, todo = "a host name that resolves", "check its spelling and the network"
        case ConnectionError() if "rejected SSL" in said:
            wanted = "one that speaks SSL, since PGSSLMODE or the URL's sslmode asks for it"
            todo = "unset that, or set it to prefer"
        case _:
            wanted, todo = "a PostgreSQL that listens there", "start it, or correct host and port"
    return wanted, todo


def _of_the_server(error: Exception, said: str) -> tuple[str, str]:
    import asyncpg

    match error:
        case asyncpg.InvalidAuthorizationSpecificationError() if "pg_hba.conf" in said:
            wanted = "that its pg_hba.conf lets in this user, from this address, to this database"
            todo = "ask its administrator for such a line"
            if "no encryption" in said:
                wanted += ", without encryption"
                todo = f"write sslmode=require into the URL, or {todo}"
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            wanted, todo = "a user and password that it knows", "correct them in DATABASE_URL"
        case asyncpg.InvalidCatalogNameError():
            wanted, todo = "a database that exists", "create it, or correct its name"
        case asyncpg.InsufficientPrivilegeError():
            wanted = "a role that owns the schema labkit, or may make it where there is none"
            todo = "name that role, or let the database's owner run GRANT CREATE ON DATABASE … TO …"
        case asyncpg.DiskFullError():
            wanted, todo = "room for about 100 MB on the server's disk", "make room there"
        case asyncpg.TooManyConnectionsError():
            wanted, todo = "about 50 free connections", "close other programs', or raise the limit"
        case asyncpg.ReadOnlySQLTransactionError():
            wanted, todo = "a server and role that may write", "name such a one"
        case asyncpg.CannotConnectNowError():
            wanted, todo = "one that has started, and is not stopping", "wait, and run this again"
        case asyncpg.ClientConfigurationError() if "root certificate" in said:
            wanted = "the certificate of the authority that the server's is verified by"
            todo = "put it there, or name it by sslrootcert=FILE; or write sslmode=require"
        case (
            asyncpg.ClientConfigurationError()
            | asyncpg.UndefinedObjectError()
            | asyncpg.InvalidParameterValueError()
            | asyncpg.CantChangeRuntimeParamError()
        ):
            wanted = "options that asyncpg and the server know, with values that they take"
            todo = "correct the part of the URL after ?, and the PG… environment variables"
        case _:
            wanted = f"PostgreSQL {MINIMUM_VERSION} or later, and a schema labkit of labkit's own"
            todo = "read the server's log, or name another server"
    return wanted, todo


def _options(dsn: Dsn) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(urlsplit(dsn[:]).query).items()}


def _place(dsn: Dsn) -> str:
    """Host and port, which asyncpg looks for in this order."""
    options, hosts = _options(dsn), urlsplit(dsn[:]).netloc.rpartition("@")[2]
    port = options.get("port") or os.environ.get("PGPORT") or "5432"
    found = hosts or options.get("host") or os.environ.get("PGHOST") or "the default host"
    _, colon, last = found.rpartition(":")
    return found if colon and last.isdigit() else f"{found}:{port}"


def _unreadable_file(dsn: Dsn) -> str | None:
    """A file of the SSL options that is not there, or is out of reach."""
    options = _options(dsn)
    for name in "sslcert", "sslkey", "sslrootcert", "sslcrl":
        if file := options.get(name) or os.environ.get(f"PG{name.upper()}"):
            try:
                Path(file).open("rb").close()
            except OSError:
                return f"{name}={file}"
    return None
