"""A service with a large cache, under three settings of the garbage collector.

Notebook 07 runs it in a process of its own, because the settings are the process's. It prints what
it saw as one line of JSON. The URL of the database comes in by the environment.
"""

import asyncio
import gc
import json
import os
import weakref
from collections import deque
from time import perf_counter
from typing import Any

import asyncpg

import labkit as lab

ENTRIES = 300_000  # in the cache
REQUESTS = 400
ROWS = 2_500  # for each request
RECENT = 20  # so many answers are in use at once
QUERY = "SELECT id, customer FROM labkit.orders WHERE id <= $1"


class Cycle:
    """It refers to itself, so only the collector can free it: reference counts never reach 0."""

    def __init__(self) -> None:
        self.me = self


class Pauses:
    """How long each garbage collection took: its generation, and ms."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.seen.append((info["generation"], 1e3 * (perf_counter() - self._began)))


async def serve(connection: asyncpg.Connection, recent: deque[list[list[Any]]]) -> int:
    """Answer requests, one after the other. Each leaves a cycle; returns the most that waited."""
    garbage: weakref.WeakSet[Cycle] = weakref.WeakSet()
    most = 0
    for _ in range(REQUESTS):
        garbage.add(Cycle())
        recent.append([list(row) for row in await connection.fetch(QUERY, ROWS)])
        most = max(most, len(garbage))
    return most


def as_it_is() -> None:
    """The collector as Python sets it."""


def raised_thresholds() -> None:
    """Begin a collection a hundred times less often."""
    youngest, *others = gc.get_threshold()
    gc.set_threshold(100 * youngest, *others)


def frozen() -> None:
    """Never look again at what is alive now. First collect, so that no garbage is kept."""
    gc.collect()
    gc.freeze()


async def watched(connection: asyncpg.Connection, how: str) -> dict[str, Any]:
    """Serve under one of the settings, and say what the collector did."""
    before, pauses = gc.get_threshold(), Pauses()
    recent: deque[list[list[Any]]] = deque(maxlen=RECENT)
    entries = [Cycle() for _ in range(1_000)]  # a part of the cache that will be dropped
    dropped = weakref.WeakSet(entries)
    gc.collect()
    {"as it is": as_it_is, "raised thresholds": raised_thresholds, "frozen": frozen}[how]()
    gc.callbacks.append(pauses)
    try:
        with lab.Probe(threshold_ms=20) as probe:
            most = await serve(connection, recent)
        by_itself = pauses.seen.copy()
        for _ in range(3):
            gc.collect()
    finally:
        gc.callbacks.remove(pauses)
        gc.set_threshold(*before)
    entries.clear()
    gc.collect()
    kept = len(dropped)
    gc.unfreeze()
    gc.collect()
    return {
        "setting": how,
        "full collections": sum(generation == 2 for generation, _ in by_itself),
        "longest pause (ms)": max((ms for _, ms in by_itself), default=0),
        "a full one by hand (ms)": min(ms for _, ms in pauses.seen[-3:]),
        "garbage waiting, at most": most,
        "dropped, and kept": kept,
        "after gc.unfreeze()": len(dropped),
        "stalls": [(str(s.frame), s.cause, s.duration_ms) for s in probe.stalls],
    }


async def main() -> dict[str, Any]:
    """The three settings, one after the other, over the same cache."""
    cache = [[number, []] for number in range(ENTRIES)]
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        hows = ("as it is", "raised thresholds", "frozen")
        runs = [await watched(connection, how) for how in hows]
    finally:
        await connection.close()
    return {"thresholds": gc.get_threshold(), "entries": len(cache), "runs": runs}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
