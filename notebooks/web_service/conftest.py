"""What the tests of the endpoints need: pytest finds this file by its name."""

from labkit.probe.testing import no_stalls

__all__ = ["no_stalls"]
