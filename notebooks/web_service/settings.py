"""What the service is told by its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

PARTS = ("credit", "shipping", "sign_in", "export", "payments")  # each is sick, or repaired


@dataclass(frozen=True, slots=True)
class Settings:
    """Read once, when the application is made.

    Attributes:
        dsn: Which PostgreSQL; kept out of texts, since it holds a password.
        repaired: Which of the parts are taken from `sound/`.
        watched: Whether a probe and a meter look at it from inside.
        collector_s: How long the collector of logs takes to confirm a line, in seconds.
    """

    dsn: str = field(repr=False)
    repaired: tuple[str, ...] = ()
    watched: bool = False
    collector_s: float = 0.12


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """WEB_SERVICE_DSN, and WEB_SERVICE_REPAIRED, _WATCHED and _COLLECTOR_S if they are set."""
    return Settings(
        dsn=environ["WEB_SERVICE_DSN"],
        repaired=tuple(environ.get("WEB_SERVICE_REPAIRED", "").split()),
        watched=bool(environ.get("WEB_SERVICE_WATCHED")),
        collector_s=float(environ.get("WEB_SERVICE_COLLECTOR_S", "0.12")),
    )
