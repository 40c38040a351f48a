"""Open a case of notebook 08; what a case is made of stands in `notebooks/mystery/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.database import database
from labkit.errors import LabError
from labkit.exercises import find_lessons

if TYPE_CHECKING:
    from mystery.case import Case


def mystery(seed: int, dsn: str | None = None) -> Case:
    """Open a case: a service of several modules, with three culprits hidden in it by the seed.

    Args:
        seed: Any whole number: each is a case of its own, and always the same one.
        dsn: Which PostgreSQL the service works on; `labkit.database()` if not given.

    Example:
        case = lab.mystery(7)
        look = case.measure()
        lab.stalls(look)
        case.accuse("pricing.quote")
    """
    if not isinstance(seed, int):
        raise LabError(f"mystery() was given seed={seed!r}. Expected a whole number: mystery(7).")
    find_lessons()
    from mystery.case import Case

    return Case(seed, dsn or database())
