"""Export a million orders: at once, or in batches. Each in a process of its own, for its memory.

Notebook 07 runs `python pitfalls/giant_result.py at_once|in_batches`. The program prints what it
saw as one line of JSON. The URL of the database comes in by the environment, where no list of
processes shows its password.
"""

import asyncio
import gc
import json
import os
import sys
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import psutil

import labkit as lab

COPIES = 5  # of 200,000 orders each: a million rows, and no table is made for them
ORDERS = """
    SELECT id, customer, amount::float8 FROM labkit.orders, generate_series(1, $1::int) AS copy
"""
BATCH = 1_000  # rows


def checksum(rows: Iterable[Sequence[Any]]) -> int:
    """Make a line of each row, and add up the lines' checksums. It stands for any export."""
    return sum(zlib.crc32(b"%d;%d;%.2f\n" % tuple(row)) for row in rows)


async def at_once(connection: asyncpg.Connection, copies: int) -> int:
    """All rows in one list, and all the work on the loop."""
    rows = await connection.fetch(ORDERS, copies)
    return checksum(rows)


async def in_batches(connection: asyncpg.Connection, copies: int) -> int:
    """A server-side cursor, which lives in a transaction; the work on another thread."""
    total = 0
    async with connection.transaction(readonly=True):
        cursor = await connection.cursor(ORDERS, copies)
        while batch := await cursor.fetch(BATCH):
            total += await asyncio.to_thread(checksum, batch)
    return total


def peak_mb() -> float:
    """The most memory that this process has ever had, in MB (10⁶ bytes).

    Not `ru_maxrss` on Linux: that of a new process begins at its parent's, so it would tell how
    large the notebook is.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text("ascii").splitlines()
        peak = next(line for line in status if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset / 1e6)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


class Memory:
    """Notes the process's memory twenty times a second, on a thread of its own."""

    def __init__(self) -> None:
        self.over_time: list[tuple[float, float]] = []  # seconds, MB
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._note, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _note(self) -> None:
        process, began = psutil.Process(), perf_counter()
        while not self._stop.wait(0.05):
            self.over_time.append((perf_counter() - began, process.memory_info().rss / 1e6))


class Collector:
    """How long Python's garbage collector ran."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.seconds += perf_counter() - self._began


async def watched(how: str, copies: int) -> dict[str, Any]:
    """Run one of the two, and say what it took."""
    export = {"at_once": at_once, "in_batches": in_batches}[how]
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    collector = Collector()
    gc.callbacks.append(collector)
    try:
        await in_batches(connection, 0)  # what is made once: the cursor, the thread
        before = peak_mb()
        with lab.Probe() as probe, Memory() as memory:
            began = perf_counter()
            total = await export(connection, copies)
            took = perf_counter() - began
        peak = peak_mb()
    finally:
        gc.callbacks.remove(collector)
        await connection.close()
    longest = max(probe.stalls, key=lambda stall: stall.duration_ms, default=None)
    return {
        "how": how.replace("_", " "),
        "checksum": total,
        "memory (MB)": peak - before,
        "loop lag, longest (ms)": max(lag for _, lag in probe.lag),
        "where": f"{longest.frame}, {longest.cause}" if longest else "no stall",
        "garbage collector": collector.seconds / took,
        "took (s)": took,
        "over time": [(at, mb - before) for at, mb in memory.over_time],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watched(sys.argv[1], COPIES))))
