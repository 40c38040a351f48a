"""Stalls of known length, kind and line: what the detectors are judged by.

Each kind stalls the running loop for about `seconds` and returns for how long the guilty call took
by its own clock (None where another thread is to blame). The guilty line is marked by a comment,
and `expected_lines` finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import asyncpg
import psycopg2

Inject = Callable[[str, float], Awaitable[float | None]]


@dataclass(frozen=True)
class Kind:
    """One way to stall a loop, and what a detector should say of it."""

    name: str
    cause: str
    inject: Inject
    guilty: Callable[..., object]  # the function that holds the marked line
    prepare: Callable[[float], object] = lambda seconds: None  # on no loop, before the stall

    def expected_lines(self) -> set[int]:
        """The numbers of the lines marked `# HERE`."""
        lines, first = inspect.getsourcelines(self.guilty)
        return {first + i for i, line in enumerate(lines) if "# HERE" in line}


def spin(seconds: float) -> None:
    until = perf_counter() + seconds
    while perf_counter() < until: pass  # fmt: skip # noqa: E701 # HERE


def timed(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


@cache
def rate_of(work: Callable[[int], object], sample: int) -> float:
    """Units of `work` per second, the best of five."""
    best = 0.0
    for _ in range(5):
        best = max(best, sample / timed(lambda: work(sample)))
    return best


def sqlite_count(n: int) -> object:
    sql = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?) "
        "SELECT count(*) FROM c"
    )
    with sqlite3.connect(":memory:") as connection:
        return connection.execute(sql, (n,))  # HERE


def json_dump(n: int) -> object:
    return json.dumps([1] * n)  # HERE


async def in_sleep(dsn: str, seconds: float) -> float:
    return timed(lambda: time.sleep(seconds))  # HERE


async def in_psycopg2(dsn: str, seconds: float) -> float:
    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        await asyncio.sleep(0)  # connecting is a stall of its own, and not the one in question
        took = timed(lambda: cursor.execute("select pg_sleep(%s)", (seconds,)))  # HERE
        await asyncio.sleep(0)
    return took


async def in_sqlite3(dsn: str, seconds: float) -> float:
    n = int(seconds * rate_of(sqlite_count, 100_000))
    return timed(lambda: sqlite_count(n))


async def in_python(dsn: str, seconds: float) -> float:
    return timed(lambda: spin(seconds))


def json_rate(seconds: float = 0) -> float:
    return rate_of(json_dump, 500_000)


async def in_json(dsn: str, seconds: float) -> float:
    return timed(lambda: json_dump(int(seconds * json_rate())))


_heap: list[list[object]] = []


def make_heap(seconds: float) -> None:
    """Live objects enough for a full collection to take about that long."""
    _heap.clear()
    gc.disable()
    _heap.extend([] for _ in range(500_000))
    while timed(gc.collect) < seconds:
        _heap.extend([] for _ in range(200_000))


async def in_gc(dsn: str, seconds: float) -> float:
    took = timed(lambda: gc.collect())  # HERE
    gc.enable()
    return took


async def in_reader(dsn: str, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    ours, theirs = socket.socketpair()

    def readable() -> None:
        ours.recv(1)
        done.set_result(timed(lambda: time.sleep(seconds)))  # HERE

    with ours, theirs:
        loop.add_reader(ours, readable)
        theirs.send(b"!")
        took = await done
        loop.remove_reader(ours)
    return took


async def in_codec(dsn: str, seconds: float) -> float:
    took = 0.0

    def decode(text: str) -> str:
        nonlocal took
        took = timed(lambda: time.sleep(seconds))  # HERE
        return text

    connection = await asyncpg.connect(dsn)
    try:
        await connection.set_type_codec(
            "date", schema="pg_catalog", encoder=str, decoder=decode, format="text"
        )
        await connection.fetchval("select current_date")
    finally:
        await connection.close()
    return took


async def in_crowd(dsn: str, seconds: float) -> float:
    async def one() -> None:
        spin(seconds / 60)

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(one())
        began = perf_counter()
    return perf_counter() - began


async def ticking(thread: threading.Thread) -> None:
    """A loop that has something to do every millisecond while the thread runs."""
    await asyncio.sleep(0.005)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)


async def in_c_thread(dsn: str, seconds: float) -> None:
    n = int(seconds * json_rate())
    await ticking(threading.Thread(target=json_dump, args=(n,), name="hog"))


async def in_python_threads(dsn: str, seconds: float) -> None:
    def hogs() -> None:
        threads = [threading.Thread(target=spin, args=(seconds,), name="hog") for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    await ticking(threading.Thread(target=hogs, name="starter"))


STARVED = "starved by another thread"
KINDS = [
    Kind("time.sleep", "blocked", in_sleep, in_sleep),
    Kind("psycopg2", "blocked", in_psycopg2, in_psycopg2),
    Kind(
        "sqlite3", "computing", in_sqlite3, sqlite_count, lambda s: rate_of(sqlite_count, 100_000)
    ),
    Kind("pure Python", "computing", in_python, spin),
    Kind("json.dumps", "computing", in_json, json_dump, json_rate),
    Kind("garbage", "collecting garbage", in_gc, in_gc, make_heap),
    Kind("reader callback", "blocked", in_reader, in_reader),
    Kind("type codec", "blocked", in_codec, in_codec),
    Kind("crowd of 60", "computing", in_crowd, spin),
    Kind("C call in a thread", STARVED, in_c_thread, json_dump, json_rate),
    Kind("Python threads", STARVED, in_python_threads, spin),
]
