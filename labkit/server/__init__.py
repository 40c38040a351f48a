"""Which PostgreSQL the lab works on: yours, Compose's, or a private one that starts by itself.

`database` chooses it and sees to the table of orders; `embedded` runs the private one. What goes
wrong on a server is explained here, in words.
"""

from labkit.server.database import (
    COMPOSE_PLACE,
    Dsn,
    choose,
    database,
    explain,
    has_dataset,
    session,
)

__all__ = ["COMPOSE_PLACE", "Dsn", "choose", "database", "explain", "has_dataset", "session"]
