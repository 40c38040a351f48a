"""Detectors of loop stalls side by side, measured here: `python -m tests.benchmark_detectors`.

Takes about half an hour. `--nest` measures the same under nest_asyncio, `--quick` less of it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, partial
from statistics import mean, median
from time import perf_counter
from typing import Any

import asyncpg
import nest_asyncio
import psutil

import labkit
from labkit.measure.load import Load

try:
    import aiocop
    import aiodebug.log_slow_callbacks
    import pyleak.eventloop
    from blockbuster import BlockingError, blockbuster_ctx

    from tests.stalls import KINDS, Detector, Outcome, Report, outcome, outcomes, probe
except ModuleNotFoundError as missing:
    sys.exit(
        f"{missing.name} is not installed. Expected what the tests need, and two more: "
        "pip install -r tests/requirements.txt aiocop pyleak"
    )

MS = 10  # what counts as a stall
NOT_ONE_CALLBACK = ("crowd of 60", "C call in a thread", "Python threads")


def lines_in(text: str) -> frozenset[tuple[str, int]]:
    """Every FILE:LINE that a message names, whatever it says of it."""
    return frozenset((file, int(line)) for file, line in re.findall(r"(/[^\s:]+):(\d+)", text))


class Warnings(logging.Handler):
    """Makes a report of each of asyncio's warnings of a slow callback."""

    def __init__(self, reports: list[Report]) -> None:
        super().__init__()
        self.reports = reports

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if took := re.search(r"took ([\d.]+) seconds", text):
            self.reports.append(Report(1e3 * float(took[1]), None, lines_in(text)))


@contextmanager
def asyncio_debug(threshold_ms: float) -> Iterator[list[Report]]:
    """asyncio's debug mode."""
    reports: list[Report] = []
    loop, log, handler = asyncio.get_running_loop(), logging.getLogger("asyncio"), Warnings(reports)
    log.addHandler(handler)
    loop.slow_callback_duration = threshold_ms / 1e3
    loop.set_debug(True)
    try:
        yield reports
    finally:
        loop.set_debug(False)
        log.removeHandler(handler)


@contextmanager
def aiodebug_slow_callbacks(threshold_ms: float) -> Iterator[list[Report]]:
    """aiodebug, which knows how to begin and not how to end."""
    reports: list[Report] = []
    handle = asyncio.events.Handle
    before = handle._run
    aiodebug.log_slow_callbacks.enable(
        threshold_ms / 1e3,
        lambda name, took: reports.append(Report(1e3 * took, None, lines_in(name))),
    )
    try:
        yield reports
    finally:
        handle._run = before  # type: ignore[method-assign]


@contextmanager
def blockbuster(threshold_ms: float) -> Iterator[list[Report]]:
    """blockbuster, which has no threshold, and raises in place of a blocking call."""
    reports: list[Report] = []
    try:
        with blockbuster_ctx():
            yield reports
    except BlockingError as error:
        seen = frozenset(
            (f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__)
        )
        reports.append(Report(None, None, seen))


@contextmanager
def aiocop_slow_tasks(threshold_ms: float) -> Iterator[list[Report]]:
    """aiocop, which times each handle, and hears of blocking calls by audit hooks."""
    reports: list[Report] = []

    def slow(event: Any) -> None:
        if event.exceeded_threshold:
            traces = [*event.blocking_events, *event.cpu_stack_samples]
            text = " ".join(f"{trace['trace']} {trace['entry_point']}" for trace in traces)
            reports.append(Report(event.elapsed_ms, event.reason, lines_in(text)))

    patch_for_aiocop(round(threshold_ms))
    aiocop.register_slow_task_callback(slow)
    aiocop.activate()
    try:
        yield reports
    finally:
        aiocop.deactivate()
        aiocop.clear_slow_task_callbacks()


@cache
def patch_for_aiocop(threshold_ms: int) -> None:
    """Once a process: what aiocop patches, it does not take back. Hence it comes last."""
    aiocop.patch_audit_functions()
    aiocop.start_blocking_io_detection()
    aiocop.detect_slow_tasks(threshold_ms=threshold_ms)


@contextmanager
def pyleak_blocking(threshold_ms: float) -> Iterator[list[Report]]:
    """pyleak, whose thread asks the loop to answer, and looks at it if it does not."""
    reports: list[Report] = []
    watching = pyleak.eventloop._EventLoopBlockDetector(
        action="log",
        logger=logging.Logger("nobody", logging.CRITICAL),
        threshold=threshold_ms / 1e3,
        check_interval=threshold_ms / 5e3,
        schedule_callback=asyncio.get_running_loop().call_soon_threadsafe,
    )
    watching.start_monitoring()
    try:
        yield reports
    finally:
        watching.stop_monitoring()
    for block in watching.detected_blocks:
        stack = [(frame.filename, frame.lineno or 0) for frame in block.blocking_stack or ()]
        reports.append(Report(1e3 * block.duration, None, frozenset(stack)))


DETECTORS: dict[str, Detector] = {
    "asyncio debug mode": asyncio_debug,
    "aiodebug": aiodebug_slow_callbacks,
    "blockbuster": blockbuster,
    "pyleak": pyleak_blocking,
    "labkit.Probe": probe,
    "aiocop": aiocop_slow_tasks,
}
# No detectors of stalls, and what each can say of one all the same.
PROFILERS = """
profiling.sampling (3.15): how often each line was on the stack of a whole run or of an attached
  process. It has flame graphs, sees native threads by --native, and costs the process nothing.
  It knows no iteration: a stall of 100 ms in 10 s is one hundredth of its samples, with no
  moment, no length and no cause, beside all that ran in short pieces and hurt nobody.
asyncio pstree (3.14): the tasks of a process and whom each awaits, at one moment, from outside.
  Asked while the loop is held, it names the task that runs, if one does; it cannot know when to
  ask, and of a callback, a collection or another thread it says nothing.
"""


def quiet(dsn: str, detector: Detector, seconds: float) -> int:
    """How many reports there are while 200 lookups a second meet no stall."""

    async def main() -> int:
        async with asyncpg.create_pool(dsn, min_size=5, max_size=5) as pool:
            sql = "select * from labkit.orders where id = $1"
            load = Load()
            load.offer("lookup", lambda: pool.fetchrow(sql, 7), rate=200)
            with detector(MS) as reports:
                await load.run(seconds=seconds)
            return len(reports)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main())


def harmless(dsn: str, detector: Detector) -> str:
    """How many calls of 2 ms are reported all the same; a collection is never as short."""
    kinds = [kind for kind in KINDS if kind.name != "garbage"]
    found = [outcome(kind, 0.002, dsn, detector, MS) for kind in kinds for _ in range(2)]
    short = [o for o in found if o.took_ms is None or o.took_ms < MS / 2]
    return f"{sum(o.report is not None for o in short)}/{len(short)}"


def on_a_core_of_its_own() -> None:
    """Put this process on one core and PostgreSQL on the others, where that can be done.

    Where the scheduler puts the two makes more of a difference than any detector does.
    """
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > 1:
        os.sched_setaffinity(0, cores[:1])
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "postgres":
                    process.cpu_affinity(cores[1:])


def kept(dsn: str, watch: Callable[[], AbstractContextManager[object]], pairs: int) -> list[float]:
    """Throughput of a saturated loop with a detector over without.

    The clients never pause. Each pair is made of 100 slices of 0.1 s with and 100 without,
    in the order on, off, off, on, so that a machine that is faster or busier for a while helps
    both.
    """

    async def main() -> list[float]:
        answers = 0

        async def client(pool: asyncpg.Pool) -> None:
            nonlocal answers
            async with pool.acquire() as connection:
                while True:
                    await connection.fetchval("select 1")
                    answers += 1

        async def rate(watch: Callable[[], AbstractContextManager[object]]) -> float:
            with watch():
                await asyncio.sleep(0.03)  # beginning is not what is measured
                before, began = answers, perf_counter()
                await asyncio.sleep(0.1)
                return (answers - before) / (perf_counter() - began)

        async def pair() -> float:
            on = off = 0.0
            for _ in range(50):
                on += await rate(watch)
                off += await rate(nullcontext) + await rate(nullcontext)
                on += await rate(watch)
            return on / off

        async with asyncpg.create_pool(dsn, min_size=10, max_size=10) as pool:
            on_a_core_of_its_own()
            clients = [asyncio.create_task(client(pool)) for _ in range(10)]
            try:
                await rate(watch)
                ratios = [await pair() for _ in range(pairs)]
                assert not any(task.done() for task in clients), "a client failed"
                return ratios
            finally:
                for task in clients:
                    task.cancel()
                await asyncio.gather(*clients, return_exceptions=True)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main())


def share(found: list[Outcome], true: Callable[[Outcome], bool]) -> str:
    return f"{sum(map(true, found))}/{len(found)}"


def by_kind(found: list[Outcome]) -> dict[str, str]:
    """Of each kind: how many were found, and how many with the guilty line."""
    kinds = {o.kind.name: [p for p in found if p.kind is o.kind] for o in found}
    return {
        kind: f"{share(of, lambda o: o.report is not None)}, {share(of, lambda o: o.line_named)}"
        for kind, of in kinds.items()
    }


def row(name: str, detector: Detector, dsn: str, few: int, pairs: int) -> list[str]:
    found = outcomes(dsn, few, detector, MS)
    BY_KIND[name] = by_kind(found)
    others = [o for o in found if o.kind.name in NOT_ONE_CALLBACK]
    ordinary = [o for o in found if o.kind.name not in NOT_ONE_CALLBACK]
    errors = [o.error_ms for o in ordinary if o.error_ms is not None]
    ratios = kept(dsn, partial(detector, MS), pairs)
    return [
        name,
        share(ordinary, lambda o: o.report is not None),
        share(others, lambda o: o.report is not None),
        f"{mean(o.line_named for o in found):.0%}",
        f"{mean(o.cause_right for o in found):.0%}",
        f"{median(errors):.2f} ms" if errors else "-",
        str(quiet(dsn, detector, 5)),
        harmless(dsn, detector),
        f"{median(ratios):.2f}",
    ]


BY_KIND: dict[str, dict[str, str]] = {}  # by detector


def print_kinds() -> None:
    """A row a kind, a column a detector."""
    print("by kind: found, and with the guilty line")
    print(" " * 20, *(f"{name[:13]:>14}" for name in BY_KIND))
    for kind in KINDS:
        cells = [found.get(kind.name, "-") for found in BY_KIND.values()]
        print(f"{kind.name:20}", *(f"{cell:>14}" for cell in cells))


def spread(ratios: list[float]) -> str:
    few = f"{len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f}"
    return f"{median(ratios):.3f} (median of {few})"


TITLES = [
    "detector          ",
    "found",
    "crowd, GIL",
    "line",
    "cause",
    "  error",
    "alarms in 5 s",
    "harmless",
    "throughput kept",
]
NOTES = f"""
Stalls of 10 to 120 ms, threshold {MS} ms. found: where one callback was slow. crowd, GIL: where 60
were short, or another thread had the interpreter. line: the guilty one is among those named, of
all stalls. alarms in 5 s: of 200 lookups a second. harmless: reports of calls of 2 ms.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nest", action="store_true", help="under nest_asyncio")
    parser.add_argument("--quick", action="store_true", help="fewer stalls and pairs")
    options = parser.parse_args()
    few, pairs = (3, 4) if options.quick else (7, 10)
    logging.getLogger("asyncio").propagate = False
    dsn = labkit.database()
    if options.nest:
        nest_asyncio.apply(asyncio.new_event_loop())

    print("  ".join(TITLES))
    for name, detector in DETECTORS.items():
        cells = zip(row(name, detector, dsn, few, pairs), TITLES, strict=True)
        print("  ".join(f"{cell:{'>' if i else '<'}{len(t)}}" for i, (cell, t) in enumerate(cells)))
    print(NOTES)
    print_kinds()
    print(PROFILERS)
    print("throughput of a saturated loop, with over without, paired in one process:")
    print("  no detector twice", spread(kept(dsn, nullcontext, pairs)))
    for threshold in (50, 10):
        print(f"  probe at {threshold} ms   ", spread(kept(dsn, partial(probe, threshold), pairs)))


if __name__ == "__main__":
    main()
