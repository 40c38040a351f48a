"""A server's host as a name, where its URL has a number. It belongs to trap 5 of notebook 07."""

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit


def by_name(dsn: str) -> dict[str, Any]:
    """What to give `asyncpg.connect` beside the URL, so that the host has to be looked up.

    Args:
        dsn: Which server.

    Returns:
        Nothing if the URL has no such number: a name, several hosts, or a Unix socket. For this
        machine, `localhost`. For a number to which no name is known, the number written as one
        integer, which is looked up like a name.
    """
    parts = urlsplit(dsn)
    try:
        # Of several hosts, the ports could not be read.
        number = ip_address("" if "," in parts.netloc else parts.hostname or "")
    except ValueError:
        return {}
    name = "localhost" if number.is_loopback else str(int(number))
    # With a host beside the URL, asyncpg does not read the URL's port. Without one in the URL, it
    # knows itself where to look.
    return {"host": name, "port": parts.port} if parts.port else {"host": name}
