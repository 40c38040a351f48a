"""Stalls of known length, kind and line, and how a detector did on them.

Each kind stalls the running loop for about `seconds` and returns for how long it did: by the guilty
call's own clock, or, where another thread is to blame, by how late the loop's own ticks came. The
guilty line is marked by a comment, and `expected_lines` finds it.

Run as a program (`python -m tests.stalls DSN --nest`), it prints how the probe does under
nest_asyncio, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any, TypeVar

import asyncpg
import nest_asyncio
import psutil
import psycopg2
import pytest

from labkit import Probe

T = TypeVar("T")
Inject = Callable[[str, float], Awaitable[float]]


@dataclass(frozen=True)
class Kind:
    """One way to stall a loop, and what a detector should say of it."""

    name: str
    cause: str
    inject: Inject
    guilty: Callable[..., object]  # the function that holds the marked line
    # On no loop, before the stall; what it returns is kept until the stall is over.
    prepare: Callable[[float], object] = lambda seconds: None

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
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        return connection.execute(sql, (n,))  # HERE


def json_dump(n: int) -> object:
    return json.dumps([1] * n)  # HERE


async def in_sleep(dsn: str, seconds: float) -> float:
    return timed(lambda: time.sleep(seconds))  # HERE


async def in_psycopg2(dsn: str, seconds: float) -> float:
    connection = await asyncio.to_thread(psycopg2.connect, dsn)
    with contextlib.closing(connection), connection.cursor() as cursor:
        took = timed(lambda: cursor.execute("select pg_sleep(%s)", (seconds,)))  # HERE
        await asyncio.sleep(0)  # closing takes a millisecond that does not belong to it
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


def make_heap(seconds: float) -> list[list[object]]:
    """Live objects enough for a full collection to take about that long."""
    heap: list[list[object]] = []
    gc.disable()
    while timed(gc.collect) < seconds:
        heap.extend([] for _ in range(200_000))
    return heap


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
        try:
            done.set_result(timed(lambda: time.sleep(seconds)))  # HERE
        except Exception as error:  # blockbuster refuses the call
            done.set_exception(error)

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

    tasks = [asyncio.create_task(one()) for _ in range(60)]
    began = perf_counter()
    await tasks[-1]
    return perf_counter() - began


async def ticking(thread: threading.Thread) -> float:
    """How late the latest tick came, of one a millisecond while the thread runs."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()

    def tick(due: float, latest: float) -> None:
        now = perf_counter()
        latest = max(latest, now - due)
        if thread.is_alive():
            loop.call_later(0.001, tick, now + 0.001, latest)
        else:
            done.set_result(latest)

    await asyncio.sleep(0.005)
    began = perf_counter()
    thread.start()  # it can keep the interpreter from here on
    tick(began, 0)
    return await done


async def in_c_thread(dsn: str, seconds: float) -> float:
    n = int(seconds * json_rate())
    return await ticking(threading.Thread(target=json_dump, args=(n,), name="hog"))


async def in_python_threads(dsn: str, seconds: float) -> float:
    def hogs() -> None:
        threads = [threading.Thread(target=spin, args=(seconds,), name="hog") for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return await ticking(threading.Thread(target=hogs, name="starter"))


STARVED = "starved by another thread"
NOWHERE = ("?", 0)
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


@dataclass(frozen=True)
class Report:
    """What a detector said of a stall: how long, why, and every line that it named."""

    duration_ms: float | None = None
    cause: str | None = None
    lines: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """A stall of known length (None if the detector prevented it), and the report nearest to it."""

    kind: Kind
    took_ms: float | None
    report: Report | None
    pressed_ms: float  # for how long something waited for a CPU, or its host kept one from it

    def __str__(self) -> str:
        return f"{self.kind.name}, {self.took_ms} ms: {self.report}"

    @property
    def line_named(self) -> bool:
        """Whether the guilty line is among those that were named."""
        guilty = {(__file__, line) for line in self.kind.expected_lines()}
        return self.report is not None and bool(guilty & self.report.lines)

    @property
    def cause_right(self) -> bool:
        """Whether the cause is what it should be."""
        return self.report is not None and self.report.cause == self.kind.cause

    @property
    def error_ms(self) -> float | None:
        """How wrong the duration is."""
        reported = self.report.duration_ms if self.report else None
        return None if reported is None or self.took_ms is None else abs(reported - self.took_ms)

    @property
    def calm(self) -> bool:
        """Whether the machine let threads run. If not, it is a part of the cause, or hides it."""
        return self.pressed_ms < (0.05 if self.no_line or self.unknown else 0.2) * (
            self.took_ms or 0
        )

    @property
    def no_line(self) -> bool:
        """Whether the detector says that no look found the line."""
        return self.report is not None and self.report.lines == {NOWHERE}

    @property
    def unknown(self) -> bool:
        """Whether the detector says that it does not know."""
        return self.report is not None and self.report.cause == "unknown"


Detector = Callable[[float], contextlib.AbstractContextManager[list[Report]]]


@contextlib.contextmanager
def probe(threshold_ms: float) -> Iterator[list[Report]]:
    """Reports what labkit's probe finds, once it is left."""
    reports: list[Report] = []
    with Probe(threshold_ms) as watching:
        yield reports
    for stall in watching.stalls:
        named = frozenset([stall.frame[:2] if stall.frame else NOWHERE])
        reports.append(Report(stall.duration_ms, stall.cause, named))


def lengths(few: int, shortest: float = 0.0105, longest: float = 0.120) -> list[float]:
    """Seconds, evenly spaced on a logarithmic scale."""
    return [shortest * (longest / shortest) ** (i / (few - 1)) for i in range(few)]


def pressure() -> float:
    """For how long (s) something here was ready to run and had no CPU; 0 where none tells."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0]) / 1e6
    return 0.0


def stolen() -> float:
    """For how long (s) the host of this virtual machine kept its CPUs from it; 0 where none tells.

    It does so for tens of milliseconds at a time, and then any code seems to have run for so long.
    """
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def unless_busy(attempt: Callable[[], T], good: Callable[[T], bool], quiet: bool = False) -> T:
    """For claims about time: try again while the machine is provably busy, and skip in the end.

    With `quiet`, as for a p99, a hundredth of the time is enough to call it busy, and so is a host
    that keeps a CPU from it at all; else one that does so for 20 ms, and a hundredth of the time.
    """
    much = 0.01 if quiet else 0.1
    for _ in range(3):
        began, waited, kept = perf_counter(), pressure(), stolen()
        result = attempt()
        waited, took, kept = pressure() - waited, perf_counter() - began, stolen() - kept
        least = 0.005 if quiet else max(0.015, 0.01 * took)  # it is counted in steps of 0.01
        if good(result) or not (waited >= much * took or kept >= least):
            return result
    pytest.skip(
        f"the machine is busy: in {took:.1f} s something waited {waited:.1f} s for a CPU, and its "
        f"host kept one from it for {kept:.2f} s"
    )


def outcome(kind: Kind, seconds: float, dsn: str, detector: Detector, ms: float = 10) -> Outcome:
    """Stall a fresh loop once, with the detector on it."""
    kept = kind.prepare(seconds)
    took: float | None = None
    reports: list[Report] = []

    async def main() -> None:
        nonlocal took, reports
        with detector(ms) as reports:
            await asyncio.sleep(0.03)
            took = await kind.inject(dsn, seconds)
            await asyncio.sleep(0.03)

    pressed = pressure() + stolen()
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    pressed = pressure() + stolen() - pressed
    gc.enable()
    del kept
    took_ms = None if took is None else 1e3 * took
    nearest = min(reports, key=lambda r: abs((r.duration_ms or 0) - (took_ms or 0)), default=None)
    return Outcome(kind, took_ms, nearest, 1e3 * pressed)


def outcomes(dsn: str, few: int, detector: Detector, ms: float = 10) -> list[Outcome]:
    """Every kind at so many lengths; stalls that turned out below the threshold do not count."""
    found = [outcome(k, length, dsn, detector, ms) for k in KINDS for length in lengths(few)]
    return [o for o in found if o.took_ms is None or o.took_ms >= ms]


def scores(dsn: str, few: int) -> dict[str, Any]:
    """How the probe does in this process, in figures that survive JSON."""
    found: list[Outcome] = []
    for _ in range(4):
        found += outcomes(dsn, few, probe)
        calm = [o for o in found if o.calm]
        # Where the machine is busy, the probe may know less, but nobody's line may be accused.
        judged = calm if len(calm) >= 40 else [o for o in found if not o.unknown]
        lines = mean(o.line_named for o in judged)
        causes = mean(o.cause_right for o in judged)
        if lines >= 0.99 and causes >= 0.96:
            break  # else these are too few: one in fifty would decide
    return {
        "stalls": len(found),
        "calm": len(calm) >= 40,
        # What the machine kept from running is the machine's: that is no miss.
        "missed": [
            str(o)
            for o in found
            if o.report is None and (o.took_ms is None or o.took_ms - o.pressed_ms >= 10)
        ],
        "wrong": [str(o) for o in judged if not (o.line_named and o.cause_right)],
        "lines": lines,
        "causes": causes,
        "error_ms": median(o.error_ms for o in found if o.error_ms is not None),
    }


if __name__ == "__main__":
    if "--nest" in sys.argv:
        nest_asyncio.apply(asyncio.new_event_loop())
    print(json.dumps(scores(sys.argv[1], 5)))
