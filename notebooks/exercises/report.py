"""Exercise of notebook 01: a report that does not hold the loop. This file is meant to be read.

An answer is judged by what it returns, and by what it calls on the loop's thread. First it is
called alone, under `sys.setprofile`, which sees each call of a function that is written in C; all
waiting is done by such. So a call that is known to wait is found however short it is, and any other
if it is long; and an order comes in between two calls, which an answer that remembers does not see.
Then it is offered under load, for the picture, and to find what computes for long.
"""

import asyncio
import linecache
import os
import sys
import threading
from asyncio import events
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from socket import SocketType
from time import perf_counter
from types import FrameType
from typing import Any

import asyncpg
from exercises.instruments.meanwhile import another_order, end_all, opened
from ipykernel import iostream
from legacy import monthly_report

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database
from labkit.probe import users_frame, walk

HINTS = [
    "Run `lab.stalls(lab.measure(...))` on a scenario that offers your report four times a second: "
    "which line holds the loop? It may not be the only one.",
    "There are two ways. Either nothing in your function waits without `await` (asyncpg, and "
    "asyncio's own sleep), or the whole legacy function waits on another thread.",
    "In asyncpg's dialect the parameter is `$1`, `pool.fetch` gives a list of records, and "
    "`await asyncio.sleep(0.08)` keeps the pause. Or, in one line: "
    "`return await asyncio.to_thread(...)`, with the notebook's `dsn`.",
]

SOLUTION = """
from legacy import monthly_report


async def monthly_orders(pool, customer):
    newest = "SELECT max(created_at) FROM labkit.orders WHERE customer = $1"
    if await pool.fetchval(newest, customer) is None:
        return {}
    await asyncio.sleep(0.08)
    months = monthly_report.MONTHS.replace("%s", "$1")
    return {row["month"]: row["count"] for row in await pool.fetch(months, customer)}
"""

WHY = """every wait is an `await`, so while this request waits, the loop serves the others.
Another way: `asyncio.to_thread(monthly_report.monthly_orders, dsn, customer)`. It is the right one
if the legacy code must stay, though that opens a connection for each report.
When not to use a thread: for hundreds of requests at once. The default executor has 5 to 32
threads."""

NEWCOMER = 1_000_000 + os.getpid()  # nobody else's: has no orders, and then one
MADE_AT = datetime(2031, 5, 15, tzinfo=UTC)
CUSTOMERS = (42, 7, NEWCOMER)
STALL_MS = 30.0
LONG = 0.005  # s; what is written in C keeps the loop's thread for less, unless it waits

# What waits, whoever calls it: functions and methods, by their module.
WAITS = {
    "time": ("sleep",),
    "io": ("open",),
    "_io": ("open",),  # the same, in later Pythons
    "select": ("select", "poll", "control"),
    "_socket": ("getaddrinfo", "gethostbyname", "gethostbyaddr"),
    "posix": ("system", "waitpid", "open", "fsync"),
    "nt": ("system", "waitpid", "open", "fsync"),
    "_posixsubprocess": ("fork_exec",),
    "_winapi": ("CreateProcess", "WaitForSingleObject"),
}
DRIVERS = ("psycopg2", "psycopg_binary", "sqlite3", "_sqlite3", "MySQLdb", "pyodbc", "duckdb")
ASK = ("connect", "_connect", "execute", "callproc", "commit", "rollback", "copy", "query", "wait")
TALK = ("connect", "accept", "recv", "send")  # on a socket
LOOP = events.Handle._run.__code__.co_filename  # its frame calls each callback
# Whose calls do not wait: asyncio, asyncpg.
TRUSTED = tuple(os.path.join(os.path.dirname(file), "") for file in (LOOP, asyncpg.__file__))
PYTHON = ("<frozen", os.path.join(os.path.dirname(os.path.dirname(LOOP)), ""))

# Where a thread's join() waits: up to Python 3.12, in a method of its own.
JOIN = getattr(threading.Thread, "_wait_for_tstate_lock", threading.Thread.join).__code__

Place = tuple[lab.Frame, str]  # a line, and what it calls there


def check(answer: Callable[[asyncpg.Pool, int], Awaitable[object]]) -> lab.Verdict:
    """Call the answer alone, and watch its calls; then offer it eight times under 200 lookups."""
    dsn = database()
    expected = {c: monthly_report.monthly_orders(dsn, c) for c in CUSTOMERS}
    returned: list[tuple[int, Any, dict[str, int]]] = []  # customer, what came back, what is right
    calls = Calls()
    waited: list[bool] = []
    left = 0

    async def your_report(load: lab.Load) -> None:
        nonlocal left

        async def report(customer: int) -> None:
            returned.append((customer, await answer(pool, customer), expected[customer]))

        async def each_alone() -> None:
            for customer in CUSTOMERS:
                with calls.watched():
                    waited.append(await _waits_for(report(customer)))

        pool = await asyncpg.create_pool(dsn, min_size=5, max_size=5)
        try:
            await each_alone()
            async with another_order(dsn, NEWCOMER, MADE_AT):
                expected[NEWCOMER] = {f"{MADE_AT:%Y-%m}": 1}
                await each_alone()
            expected[NEWCOMER] = {}
            customers = iter(CUSTOMERS * 3)
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: pool.fetchval(lookup), rate=200)
            load.offer("report", lambda: report(next(customers)), rate=8)
            await load.run(seconds=1)
        finally:
            pool.terminate()  # not close(), which waits for what never comes back
            left = end_all(connections)

    with opened() as connections:
        run = lab.measure(your_report, threshold_ms=STALL_MS)
    reports = run.requests[run.requests.offer == "report"]
    if run.failed("report"):
        error = reports.error.dropna().iloc[0]
        raise lab.LabError(f"{run.failed('report')} of {len(reports)} reports: {error}")
    p99 = f"The lookups' p99 was {run.latency().p99:.0f} ms."
    doubt = None
    if blocking := calls.blocking():
        seen = (
            f"these lines of your report keep the loop's thread. However short that is, nobody "
            f"else is served meanwhile:{blocking}\n{p99}"
        )
        doubt = NotYet(seen) if calls.certain else by_the_clock(run, 1e3 * LONG, seen, 1)
        if doubt.outcome == "not yet":
            raise doubt
    if not all(waited):
        raise NotYet(
            "your report returned without giving the loop back once. So either it remembers, and "
            "misses an order that has come in meanwhile, or it waits on the loop's thread."
        )
    for customer, got, right in returned:
        if not isinstance(got, dict):  # a DataFrame compares its elements
            raise NotYet(f"expected a dict as the old report's, {right}, and got {got!r:.200}.")
        if customer == NEWCOMER and right and got == {}:
            raise NotYet(
                f"an order of customer {customer} had come in since the last call, and the report "
                f"was still {{}}: it remembers."
            )
        if got != right:
            raise NotYet(
                f"no call of yours was seen to keep the loop's thread, but for customer {customer} "
                f"the report should be {right} and was {got!r:.200}."
            )
        if list(got) != list(right):
            old, yours = next(it for it in zip(right, got, strict=True) if it[0] != it[1])
            raise NotYet(
                f"for customer {customer} the numbers are right, but not the order. The old report "
                f"has the oldest month first: it has {old} where yours has {yours}."
            )
    # Nothing but the answer can keep this loop. One such stall may be the machine's.
    stalls = sorted(
        (s.own_ms, str(s)) for s in run.stalls if s.thread is None and s.cause != "unknown"
    )
    if len(stalls) > 1 and stalls[-2][0] > STALL_MS:
        seen = (
            f"{len(stalls)} stalls in {len(reports)} reports, the longest: {stalls[-1][1]}. {p99}"
        )
        raise by_the_clock(run, stalls[-2][0], seen, stalls[-2][0] / STALL_MS)
    if doubt:  # on a busy machine, and nothing else was found
        raise doubt
    if 0 < len(returned) <= left:  # not a pool of its own
        raise NotYet(
            f"{len(returned)} reports opened {left} connections that they did not close: in "
            f"time the server has none left. Close what you open, or use `pool`."
        )
    return lab.Verdict(
        "pass",
        f"{len(returned)} reports, all right, and none was seen to keep the loop's thread. "
        f"The lookups meanwhile: {run.latency()}.",
    )


def chart(run: lab.Run) -> None:
    """The lookups, while the reports were made."""
    lab.timeline(run)


async def _waits_for(report: Awaitable[None]) -> bool:
    """Run one report, alone. Returns whether it gave the loop back, to wait for something."""
    waited = asyncio.Event()
    asyncio.get_running_loop().call_soon(waited.set)
    try:
        await report
    except lab.LabError:
        raise
    except Exception as error:
        raise lab.LabError(f"a report, alone: {type(error).__name__}: {error}") from None
    return waited.is_set()


class Calls:
    """What was called on this thread, of all that is written in C."""

    def __init__(self) -> None:
        self._waits: set[Place] = set()
        self._long: list[set[Place]] = []  # for each time that was watched
        self._began: list[float] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch this thread's calls for as long as the block runs."""
        before = sys.getprofile()
        self._long.append(set())
        self._began.clear()
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _on_event(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            self._began.append(perf_counter())
            if _waits(function) or _waits_for_a_thread(frame, function):
                self._waits |= _place(frame, function)
        elif event in ("c_return", "c_exception") and self._began:
            took = perf_counter() - self._began.pop()
            self._long[-1] |= _place(frame, function) if took > LONG else set()

    @property
    def certain(self) -> bool:
        """Whether a call was seen that is known to wait. Else it is the clock that says so."""
        return bool(self._waits)

    def blocking(self) -> str:
        """A line for each place that blocks; "" if there is none."""
        # Long once or twice may be the machine's doing.
        often = {p for p in set().union(*self._long) if sum(p in long for long in self._long) > 2}
        shown = [
            f"\n  {frame}: {linecache.getline(*frame[:2]).strip()} ({name})"
            for frame, name in sorted(self._waits | often)
        ]
        return "".join(dict.fromkeys(shown))


def _waits(function: Any) -> bool:
    """Whether a function is known to wait."""
    owner, name = getattr(function, "__self__", None), function.__name__
    if isinstance(owner, SocketType):
        return owner.gettimeout() != 0 and bool(name.startswith(TALK))
    module = function.__module__ or type(owner).__module__
    if module.partition(".")[0] in DRIVERS:
        return bool(name.startswith(ASK))
    return name in WAITS.get(module, ())


def _waits_for_a_thread(frame: FrameType, function: Any) -> bool:
    """Whether this waits for a thread that runs: a future's, an event's, a queue's, a `join()`."""
    known = frame.f_locals
    if frame.f_code is threading.Condition.wait.__code__:
        return bool(function.__name__ == "acquire" and known["timeout"] != 0)
    if frame.f_code is not JOIN or function.__name__ not in ("acquire", "join"):
        return False
    # `is_alive()` asks the same way, and does not block. And who shuts an executor down joins its
    # threads, idle ones as well: only the clock tells that from waiting for their work.
    shuts_down = ("shutdown", "thread.py")
    executor = any((f.function, os.path.basename(f.file)) == shuts_down for f in walk(frame))
    its = function.__self__  # a lock that the thread holds while it runs, or the thread's handle
    runs = its.locked() if function.__name__ == "acquire" else not its.is_done()
    return bool(known.get("block", True)) and known["timeout"] != 0 and runs and not executor


def _place(frame: FrameType, function: Any) -> set[Place]:
    """The answer's line that made this call; none if asyncio, asyncpg or an import made it."""
    stack = walk(frame)
    callbacks = [i for i, f in enumerate(stack) if f.function == "_run" and f.file == LOOP]
    stack = stack[callbacks[-1] + 1 :] if callbacks else ()
    # A thread that is started is waited for, until it runs.
    starts = any((f.function, os.path.basename(f.file)) == ("start", "threading.py") for f in stack)
    imports = any(f.file.startswith("<frozen importlib") for f in stack)
    # What is printed in a notebook waits for a thread of Jupyter's, and a service has none.
    prints = any(f.file == iostream.__file__ for f in stack)
    if starts or imports or prints or _is_trusted(stack):
        return set()
    line = users_frame(stack)
    return {(line, function.__qualname__)} if line else set()


def _is_trusted(stack: tuple[lab.Frame, ...]) -> bool:
    """Whether asyncio or asyncpg made the call, perhaps by other modules of Python.

    What they only await (`asyncio.wait_for(yours(), 5)`) or call back is no call of theirs.
    """
    for frame in reversed(stack):
        if frame.file.startswith(TRUSTED):
            return True
        if not frame.file.startswith(PYTHON) or "site-packages" in frame.file:
            return False
    return False
