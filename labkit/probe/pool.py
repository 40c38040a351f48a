"""A meter on a pool: how long tasks wait for a connection, who holds one, and since when.

`with PoolMeter(pool) as meter:` works on any asyncpg pool that is open, and on what looks like one.
The pool gets a subclass of its own class meanwhile, as an asyncpg pool has no place for a new
attribute; so `pool.fetchval()` and its like are metered, too.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Self

from labkit.errors import LabError
from labkit.probe.frames import Frame, users_frame, walk
from labkit.probe.histogram import Histogram

WAITS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)  # s; upper ends of the buckets


class Hold(NamedTuple):
    """Since when (by perf_counter) a connection is out, borrowed at which line, in which task."""

    since: float
    line: Frame | None
    task: str
    use: AbstractContextManager[object]  # entered; ends when the connection is given back

    def __str__(self) -> str:
        return f"{perf_counter() - self.since:.1f} s, borrowed at {self.line}, in {self.task!r}"


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
        waiting: How many tasks wait for a connection now.
    """

    def __init__(
        self, pool: Any, span: Callable[[str], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self.waits, self.buckets, self.waited_s = Histogram(), [0] * (len(WAITS) + 1), 0.0
        self.waiting = 0
        self._pool, self._class, self._span = pool, type(pool), span
        self._held: dict[int, Hold] = {}

    def __enter__(self) -> Self:
        """Begin to count; a LabError says that this is no pool."""
        if not (hasattr(self._pool, "acquire") and hasattr(self._pool, "release")):
            raise LabError(
                f"PoolMeter was given a {self._class.__name__}. Expected a pool as asyncpg's "
                "create_pool() returns it, with acquire() and release()."
            )
        meter, original = self, self._class

        def acquire(pool: Any, **options: Any) -> _Acquired:
            line = users_frame(walk(sys._getframe(1)))
            return _Acquired(pool, meter, original.acquire(pool, **options), line)

        async def release(pool: Any, connection: Any, **options: Any) -> None:
            try:
                await original.release(pool, connection, **options)
            finally:
                if hold := meter._held.pop(id(connection), None):
                    hold.use.__exit__(None, None, None)

        methods = {"__slots__": (), "acquire": acquire, "release": release}
        self._pool.__class__ = type(original.__name__, (original,), methods)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the pool its own class back; what is still in use ends here for the spans."""
        self._pool.__class__ = self._class
        while self._held:
            self._held.popitem()[1].use.__exit__(None, None, None)

    @property
    def longest(self) -> Hold | None:
        """Who has had a connection for the longest time by now."""
        return min(self._held.values(), default=None, key=lambda hold: hold.since)

    def as_dict(self) -> dict[str, Any]:
        """How many connections are in use and idle, and who waits: for JSON, times in ms."""
        idle, size = self._pool.get_idle_size(), self._pool.get_size()
        p99 = round(1e3 * self.waits.percentile(99), 3) if any(self.buckets) else None
        now = {"in_use": size - idle, "idle": idle, "waiting": self.waiting}
        return now | {"wait_p99_ms": p99, "longest": str(self.longest or "nobody holds one")}


@dataclass
class _Acquired:
    """What `acquire()` gives: to be awaited, or entered."""

    pool: Any
    meter: PoolMeter
    asked: Awaitable[Any]
    line: Frame | None
    connection: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Any:
        meter, began, task = self.meter, perf_counter(), asyncio.current_task()
        meter.waiting += 1
        try:
            with meter._span("acquire"):
                self.connection = await self.asked
        finally:
            meter.waiting -= 1
            meter.waits.add(waited := perf_counter() - began)
            meter.waited_s += waited
            meter.buckets[bisect_left(WAITS, waited)] += 1
        if type(self.pool) is meter._class:  # the block has ended meanwhile
            return self.connection
        name = task.get_name() if task else ""
        use = meter._span("connection")
        use.__enter__()
        meter._held[id(self.connection)] = Hold(perf_counter(), self.line, name, use)
        return self.connection

    async def __aexit__(self, *_: object) -> None:
        await self.pool.release(self.connection)
