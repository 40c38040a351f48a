"""The error with which a service refuses what it cannot serve in time. See notebook 05."""


class Overloaded(Exception):  # noqa: N818
    """Nothing was begun and nothing is broken: try again after a pause.

    A web service would answer with status 503 and a `Retry-After` header.
    """
