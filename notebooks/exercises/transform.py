"""Exercise of notebook 04: a heavy report away from the loop. This file is meant to be read.

An answer is judged by what it does under load: what held the loop, what computed in another thread
of this process, how many rows came to the loop at a time, and what it returns.
"""

import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import asyncpg
from legacy import ranking, transform

import labkit as lab
from labkit.exercises import NotYet, held_by, source_file
from labkit.probe import walk

HINTS = [
    "Where is the work? `fetch` decodes 50,000 rows on the loop's thread, and `rank` goes through "
    "them in Python. A thread shares the interpreter with the loop, and rows that travel to a "
    "worker are decoded and pickled on this side. So: who can do both, fetch and rank?",
    "PostgreSQL can. Sum the points by week and customer: `to_char(made_at, 'IYYY-IW')` is the "
    "ISO week, and `floor(amount / 10)` an order's points. (Or let a cursor bring a few hundred "
    "rows at a time, and keep what you do with each batch short.)",
    "Of each week you want one row, the best: `SELECT DISTINCT ON (week) week, customer, points "
    "FROM (... GROUP BY week, customer) AS sums ORDER BY week, points DESC, customer`. Cast "
    "`sum(...)::int`, so that points are whole numbers in Python as well.",
]

SOLUTION = '''
from legacy import ranking

BEST = f"""
SELECT DISTINCT ON (week) week, customer, points
FROM (SELECT to_char(made_at, 'IYYY-IW') AS week, customer, sum(floor(amount / 10))::int AS points
      FROM ({ranking.ORDERS}) AS orders GROUP BY week, customer) AS sums
ORDER BY week, points DESC, customer
"""


async def best_by_week(pool, workers):
    return {row["week"]: (row["customer"], row["points"]) for row in await pool.fetch(BEST)}
'''

WHY = (
    "a dozen rows come to the loop in place of 50,000, so there is nothing to decode and nothing "
    "to compute here; PostgreSQL works in a process of its own. Do not do it where the database's "
    "processor is what you are short of, or where SQL would say the rules a second time and the "
    "two could drift apart: then let a worker process fetch and rank by itself, with a function "
    "from a module. A cursor that brings small batches passes too, and is the right answer for "
    "results that do not fit into memory; its job takes longer and keeps a connection meanwhile."
)

ROWS_AT_A_TIME = 5_000  # decoding more in one go is felt by everybody


def check(answer: Callable[[Any, Any], Awaitable[object]]) -> lab.Verdict:
    """Offer the answer four times under 200 lookups per second; watch the loop and the threads."""
    dsn = lab.database()
    expected: dict[str, tuple[int, int]] = {}
    returned: list[object] = []
    fetched: list[int] = []

    class Counting(asyncpg.Connection):  # type: ignore[misc]
        async def fetch(self, *args: Any, **kwargs: Any) -> Any:
            rows = await super().fetch(*args, **kwargs)
            fetched.append(len(rows))
            return rows

    async def your_ranking(load: lab.Load) -> None:
        async def best() -> None:
            returned.append(await answer(pool, workers))

        sizes = {"min_size": 3, "max_size": 3}
        async with asyncpg.create_pool(dsn, connection_class=Counting, **sizes) as pool:
            expected.update(ranking.rank(await pool.fetch(ranking.ORDERS)))  # not under load yet
            fetched.clear()
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: pool.fetchval(lookup), rate=200)
            load.offer("ranking", best, rate=2)
            await load.run(seconds=2)

    yours = ranking.__file__, source_file(answer)
    with warm_workers() as workers, watch_threads(yours) as seen:
        run = lab.measure(your_ranking, threshold_ms=30)
    calls = run.requests[run.requests.offer == "ranking"]
    if run.failed("ranking"):
        error = calls.error.dropna().iloc[0]
        raise lab.LabError(f"{run.failed('ranking')} of {len(calls)} calls: {error}")
    held = held_by(run, len(calls) / 2, *yours)
    if fault := _fault(len(calls), held, seen, fetched):
        raise NotYet(f"{fault} The lookups' p99 was {run.latency().p99:.0f} ms.")
    for result in returned:
        if result != expected:
            raise NotYet(f"the loop stayed free, but {_wrong(result, expected)}.")
    return lab.Verdict(
        "pass",
        f"{len(calls)} rankings, all right, and nothing of yours held the loop. At most "
        f"{max(fetched, default=0):,} rows were fetched at a time. The lookups: {run.latency()}.",
    )


def chart(run: lab.Run) -> None:
    """The lookups, while the rankings were made."""
    lab.timeline(run)


@contextmanager
def warm_workers() -> Iterator[Executor]:
    """A pool of one worker process that has started."""
    workers = ProcessPoolExecutor(1, get_context("spawn"), transform.start_worker)
    try:
        workers.submit(ranking.rank, []).result()
        yield workers
    finally:
        for process in [*(workers._processes or {}).values()]:
            process.terminate()  # an answer may have given it work without end
        workers.shutdown(cancel_futures=True)


@contextmanager
def watch_threads(files: Collection[str]) -> Iterator[Counter[str]]:
    """Count how often code of some files is seen in threads that are neither this nor the loop's.

    The counter's keys are "thread at file:line in function".
    """
    seen: Counter[str] = Counter()
    here, done = threading.get_ident(), threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                name = names.get(ident, "")
                if ident == here or not name or name.startswith("labkit"):
                    continue
                found = next((f for f in walk(frame)[::-1] if f.file in files), None)
                if found:
                    seen[f"{found} ({name})"] += 1

    watcher = threading.Thread(target=watch, name="labkit: the check", daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _fault(calls: int, held: list[lab.Stall], seen: Counter[str], fetched: list[int]) -> str | None:
    """What the answer did to the loop, in a sentence; None if nothing."""
    if held:
        longest = max(held, key=lambda stall: stall.duration_ms)
        return f"your answer held the loop {len(held)} times in {calls} calls. Longest: {longest}."
    if seen.total() >= 2 * calls:
        [(where, _)] = seen.most_common(1)
        return (
            f"the computing went to a thread, and a thread shares the interpreter with the loop: "
            f"{seen.total()} looks found {where}."
        )
    if max(fetched, default=0) > ROWS_AT_A_TIME:
        return (
            f"no line of yours held the loop, but {max(fetched):,} rows came to it in one fetch: "
            f"they are decoded on its thread, and to send them on they must be pickled here."
        )
    return None


def _wrong(result: object, expected: dict[str, tuple[int, int]]) -> str:
    if not isinstance(result, dict) or result.keys() != expected.keys():
        week, best = next(iter(expected.items()))
        return (
            f"expected a dict of {len(expected)} weeks, {{{week!r}: {best}, ...}}: {result!r:.200}"
        )
    week = next(week for week in expected if result[week] != expected[week])
    return f"for week {week} the best is {expected[week]}, and not {result[week]!r}"
