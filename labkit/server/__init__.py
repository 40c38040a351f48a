"""Which PostgreSQL the lab works on: yours, Compose's, or a private one that starts by itself.

`database` chooses it and sees to the table of orders (`dataset`); `needs` is what else the
notebooks ask of it, and `explain` says in words what goes wrong there. `embedded` is the private
one: its `home` is a directory, its `supervisor` a process.
"""

from labkit.server.database import COMPOSE_PLACE, choose, database, place_of, session
from labkit.server.dataset import has_dataset, looks_right
from labkit.server.dsn import Dsn
from labkit.server.explain import explain

__all__ = [
    "COMPOSE_PLACE",
    "Dsn",
    "choose",
    "database",
    "explain",
    "has_dataset",
    "looks_right",
    "place_of",
    "session",
]
