"""A meter on a pool: how long tasks wait for a connection, who holds one, and since when.

`with PoolMeter(pool) as meter:` works on any open asyncpg pool, and on what has its methods.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Self

from labkit.errors import LabError
from labkit.probe.frames import Frame, users_frame, walk
from labkit.probe.histogram import Histogram
from labkit.probe.meters import perf_counter

_METHODS = "acquire", "release", "get_size", "get_idle_size"
WAITS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)  # s; upper ends of the buckets


class PoolMeter:
    """Meters a pool from `with` to the end of the block, on the pool's loop.

    Args:
        pool: An open pool.
        span: Gives what is entered around each wait ("acquire") and each use ("connection"), as
            `load.span` does.

    Attributes:
        waits: Times from `acquire()` to a connection, or to giving up, in seconds.
        buckets: How many of them were up to each of `WAITS`; the last counts the longer ones.
        waited_s: The sum of them, in seconds.
        waiting: How many tasks wait for a connection now, of those that have asked since then.
    """

    def __init__(
        self, pool: Any, span: Callable[[str], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self.waits, self.buckets, self.waited_s = Histogram(), [0] * (len(WAITS) + 1), 0.0
        self.waiting = 0
        self._pool, self._class, self._metered, self._span = pool, type(pool), type(pool), span
        self._held: dict[int, Borrowed] = {}  # by the connection's id
        self._all_seen = False  # whether it has seen all borrowed that are in use

    def __enter__(self) -> Self:
        """Begin to count; a LabError says that this is no pool."""
        meter, original = self, type(self._pool)
        if hasattr(original, "is_metered"):
            raise LabError("This pool has a meter already, and it can have one. Use that one.")
        missing = [name for name in _METHODS if not hasattr(original, name)]
        if missing or not iscoroutinefunction(original.release):
            given = f"PoolMeter was given a {original.__name__}."
            wanted = "acquire(), release(), which is awaited, get_size() and get_idle_size()"
            raise LabError(f"{given} Expected a pool as asyncpg's, with {wanted}.")

        def acquire(pool: Any, *arguments: Any, **options: Any) -> Borrowed:
            line = users_frame(walk(sys._getframe(1)))
            return Borrowed(meter, original.acquire(pool, *arguments, **options), line)

        async def release(pool: Any, connection: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return await original.release(pool, connection, *arguments, **options)
            finally:
                meter._given_back(connection)

        # A subclass, as an asyncpg pool has no place for a new attribute; so `pool.fetchval()` and
        # its like are metered, too.
        names = {"__slots__": (), "__module__": original.__module__, "is_metered": True}
        names |= {"acquire": acquire, "release": release}
        self._class, self._metered = original, type(original.__name__, (original,), names)
        self._pool.__class__ = self._metered
        return self

    def __exit__(self, *_: object) -> None:
        """Give the pool its own class back; what is still in use ends here for the spans."""
        self._pool.__class__, self._all_seen = self._class, False
        while self._held:
            self._held.popitem()[1].end()

    @property
    def longest(self) -> Borrowed | None:
        """Who has had a connection for the longest time by now, of those it saw borrow one."""
        return min(self._in_use(), default=None, key=lambda borrowed: borrowed.since)

    def as_dict(self) -> dict[str, Any]:
        """How many connections are in use and idle, and who waits: for JSON, times in ms.

        A connection on which the pool's `setup` runs is idle to asyncpg.
        """
        idle, size = self._pool.get_idle_size(), self._pool.get_size()
        p99 = round(1e3 * self.waits.percentile(99), 3) if any(self.buckets) else None
        now = {"in_use": size - idle, "idle": idle, "waiting": self.waiting}
        if type(self._pool) is self._metered:
            self._all_seen |= size - idle <= len(self._in_use())
        if self._all_seen or size == idle:
            nobody = "on its way to somebody, or back" if size > idle else "nobody holds one"
            longest = str(self.longest or nobody)
        else:
            longest = "not known: some were borrowed before the meter began, or after its end"
        return now | {"wait_p99_ms": p99, "longest": longest}

    def _in_use(self) -> list[Borrowed]:
        return [borrowed for borrowed in list(self._held.values()) if not borrowed.is_over()]

    def _given_back(self, connection: Any) -> None:
        if borrowed := self._held.pop(id(connection), None):
            borrowed.end()

    def _borrowed(self, borrowed: Borrowed) -> None:
        for one in [one for one in self._held.values() if one.is_over()]:
            self._given_back(one.connection)
        borrowed.use = self._span("connection")
        borrowed.use.__enter__()
        self._held[id(borrowed.connection)] = borrowed


@dataclass(eq=False)  # each is another: tasks are kept in sets
class Borrowed:
    """What `acquire()` gives, to be awaited or entered; then, who has the connection."""

    meter: PoolMeter
    asked: Any  # what the pool's own acquire() gave
    line: Frame | None  # which borrowed
    task: str = ""
    since: float = 0.0  # when it came, by perf_counter
    connection: Any = None
    use: Any = None  # what the span gave, entered until the connection is given back

    def __str__(self) -> str:
        return f"{perf_counter() - self.since:.1f} s, borrowed at {self.line}, in {self.task!r}"

    def __getattr__(self, name: str) -> Any:  # what else asyncpg's has, as its `timeout`
        return getattr(self.asked, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._borrow(self.asked).__await__()

    async def __aenter__(self) -> Any:
        return await self._borrow(self.asked.__aenter__())  # it refuses to be entered twice

    async def __aexit__(self, *error: Any) -> Any:
        try:  # it gives the connection back, and may do more: it may end a transaction
            return await self.asked.__aexit__(*error)
        finally:
            self.meter._given_back(self.connection)  # as where the pool is around another one

    async def _borrow(self, asked: Awaitable[Any]) -> Any:
        meter, began, task = self.meter, perf_counter(), asyncio.current_task()
        meter.waiting += 1
        try:
            with meter._span("acquire"):
                self.connection = await asked
        finally:
            meter.waiting -= 1
            self.since = perf_counter()
            meter.waits.add(waited := self.since - began)
            meter.waited_s += waited
            meter.buckets[bisect_left(WAITS, waited)] += 1
        if type(meter._pool) is meter._metered:  # else, the block has ended meanwhile
            self.task = task.get_name() if task else ""
            meter._borrowed(self)
        return self.connection

    def is_over(self) -> bool:
        """Whether its connection was closed: asyncpg's goes back so, without a release()."""
        try:
            getattr(self.connection, "is_closed", bool)()
        except Exception:  # it is no longer the pool's
            return True
        return False

    def end(self) -> None:
        """End the span of its use."""
        self.use.__exit__(None, None, None)
