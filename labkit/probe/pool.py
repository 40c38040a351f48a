"""A meter on a pool: how long tasks wait for a connection, who holds one, and since when.

`with PoolMeter(pool) as meter:` works on any open asyncpg pool, and on what looks like one.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Self

from labkit.errors import LabError
from labkit.probe.frames import Frame, users_frame, walk
from labkit.probe.histogram import Histogram

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
        waiting: How many tasks wait for a connection now.
    """

    def __init__(
        self, pool: Any, span: Callable[[str], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self.waits, self.buckets, self.waited_s = Histogram(), [0] * (len(WAITS) + 1), 0.0
        self.waiting = 0
        self._pool, self._class, self._span = pool, type(pool), span
        self._held: dict[int, Borrowed] = {}  # by the connection's id

    def __enter__(self) -> Self:
        """Begin to count; a LabError says that this is no pool."""
        meter, original = self, type(self._pool)
        if hasattr(original, "is_metered"):
            raise LabError("This pool has a meter already, and it can have one. Use that one.")
        if not (hasattr(original, "acquire") and hasattr(original, "release")):
            given = f"PoolMeter was given a {original.__name__}."
            raise LabError(f"{given} Expected a pool, with acquire() and release(), as asyncpg's.")

        def acquire(pool: Any, **options: Any) -> Borrowed:
            line = users_frame(walk(sys._getframe(1)))
            return Borrowed(meter, original.acquire(pool, **options), line)

        async def release(pool: Any, connection: Any, **options: Any) -> None:
            try:
                await original.release(pool, connection, **options)
            finally:
                if borrowed := meter._held.pop(id(connection), None):
                    borrowed.use.__exit__(None, None, None)

        # A subclass, as an asyncpg pool has no place for a new attribute; so `pool.fetchval()` and
        # its like are metered, too.
        methods = {"__slots__": (), "acquire": acquire, "release": release, "is_metered": True}
        self._class, self._pool.__class__ = original, type(original.__name__, (original,), methods)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the pool its own class back; what is still in use ends here for the spans."""
        self._pool.__class__ = self._class
        while self._held:
            self._held.popitem()[1].use.__exit__(None, None, None)

    @property
    def longest(self) -> Borrowed | None:
        """Who has had a connection for the longest time by now."""
        return min(self._held.values(), default=None, key=lambda borrowed: borrowed.since)

    def as_dict(self) -> dict[str, Any]:
        """How many connections are in use and idle, and who waits: for JSON, times in ms."""
        idle, size = self._pool.get_idle_size(), self._pool.get_size()
        p99 = round(1e3 * self.waits.percentile(99), 3) if any(self.buckets) else None
        now = {"in_use": size - idle, "idle": idle, "waiting": self.waiting}
        return now | {"wait_p99_ms": p99, "longest": str(self.longest or "nobody holds one")}


@dataclass
class Borrowed:
    """What `acquire()` gives, to be awaited or entered; then, who has the connection."""

    meter: PoolMeter
    asked: Awaitable[Any]
    line: Frame | None  # which borrowed
    task: str = ""
    since: float = 0.0  # when it came, by perf_counter
    connection: Any = None
    use: Any = None  # what the span gave, entered until the connection is given back

    def __str__(self) -> str:
        return f"{perf_counter() - self.since:.1f} s, borrowed at {self.line}, in {self.task!r}"

    def __await__(self) -> Generator[Any, None, Any]:
        return self._borrow(self.asked).__await__()

    async def __aenter__(self) -> Any:
        enter = getattr(self.asked, "__aenter__", None)  # which refuses to be entered twice
        return await self._borrow(enter() if enter else self.asked)

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
        if type(meter._pool) is not meter._class:  # else, the block has ended meanwhile
            self.task = task.get_name() if task else ""
            self.use = meter._span("connection")
            self.use.__enter__()
            meter._held[id(self.connection)] = self
        return self.connection

    async def __aexit__(self, *_: object) -> None:
        await self.meter._pool.release(self.connection)
