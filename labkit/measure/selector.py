"""A selector whose timers are fine enough for a load generator."""

import select
import selectors
from time import perf_counter

_FD_SETSIZE = 1024  # select() takes no larger file descriptor
_AWAKE = 0.0002  # s; see FineSelector


class FineSelector(selectors.DefaultSelector):
    """The platform's selector, with timers finer than epoll's millisecond.

    `selectors.EpollSelector` rounds a timeout up to the next millisecond, so a request would start
    half a millisecond late in the mean: more than a lookup takes. `select()` on epoll's own file
    descriptor waits by the microsecond, and as a CPU that slept takes a tenth of a millisecond to
    wake up, the last moment is spent awake. A load generator needs that; a service does not.
    """

    if hasattr(selectors, "EpollSelector"):

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """As in the standard library."""
            if timeout is None or timeout <= 0 or self.fileno() >= _FD_SETSIZE:
                return super().select(timeout)
            due = perf_counter() + timeout
            while True:
                select.select([self.fileno()], [], [], max(0.0, due - perf_counter() - _AWAKE))
                events = super().select(0)
                if events or perf_counter() >= due:
                    return events
