"""Exercise of notebook 10: an endpoint that does not hold the loop. This file is meant to be read.

An answer becomes an endpoint of a FastAPI application, which uvicorn runs on the loop that is
measured. It is asked over HTTP by a client on another loop, together with an endpoint that reads
one row. An answer is judged by what it returned, by what the archive has kept, and by what the
probe saw on the service's loop. Then an order comes in, and it is called once more, alone: no
connection may be in use that is asked nothing, nor when it has signed and kept, and neither may
happen on the loop's thread. Who does it is all one: a thread, another process, or a client of the
answer's own, which the archive sees.
"""

import asyncio
import hashlib
import inspect
import linecache
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg
from exercises.instruments import web
from exercises.instruments.meanwhile import another_order, longest, opened, rests_of
from exercises.instruments.web import archive, outside, served
from fastapi import FastAPI, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from legacy import statement as old

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database
from labkit.probe import Stall, users_frame, walk
from labkit.probe.frames import is_users

HINTS = [
    "Put `with lab.Probe(10) as probe:` around one call of the old endpoint, in a coroutine, and "
    "look at `probe.stalls`: which line holds the loop? Repair it and look again.",
    "There are two lines: one computes, one waits. Neither has an asynchronous counterpart, but "
    "both let go of Python's interpreter while they are at it. Neither needs a connection.",
    "`signature = await asyncio.to_thread(old.sign, text)`, and the same for `archive.keep`.",
]

SOLUTION = """
from legacy import statement as old


async def statement(pool, archive, customer):
    rows = await pool.fetch(old.ORDERS, customer)
    text = "\\n".join(f"{row['id']}: {row['amount']}" for row in rows)
    signature = await asyncio.to_thread(old.sign, text)
    kept_as = await asyncio.to_thread(archive.keep, text)
    return {"orders": len(rows), "signature": signature, "kept_as": kept_as}
"""

WHY = """the hash and the vendor's client work on other threads, and both let go of the
interpreter, so the loop serves everybody else meanwhile. The connection is back in the pool before
either begins.
When not to use threads: for Python code that computes (a process), and for many calls at once: the
default executor has 5 to 32 threads, and everything that uses it waits behind them."""

SIZE = 2  # connections
NEWCOMER = 2_000_000 + os.getpid()  # nobody else's: has no orders, and then one
CUSTOMERS = (42, 7, 500, NEWCOMER)
THRESHOLD_MS = 10  # half of what the signature takes on a quick machine
GIVEN_BACK = 1.0  # s; a short query that goes on meanwhile has long ended by then
LOOKUP = "SELECT id, amount FROM labkit.orders WHERE id = $1"

Look = tuple[str, str, float]  # connections in use; the line on the loop's thread; seconds
Answer = Callable[[asyncpg.Pool, old.Archive, int], Awaitable[object]]


def check(answer: Answer) -> lab.Verdict:
    """Offer the answer as an endpoint, six times in a second, beside 100 lookups."""
    dsn = database()
    returned: list[tuple[int, Any]] = []
    raised: list[Exception] = []
    texts: dict[int, str] = {}
    kept: dict[int, str] = {}
    alone: dict[str, Look] = {}

    async def your_endpoint(load: lab.Load) -> None:
        nonlocal kept
        app, customers = FastAPI(), cycle(CUSTOMERS)

        @app.get("/orders/{order}")
        async def read_order(order: int) -> dict[str, str]:
            return {key: str(it) for key, it in (await pool.fetchrow(LOOKUP, order)).items()}

        @app.get("/customers/{customer}/statement", response_model=None)
        async def read_statement(customer: int) -> object:
            try:
                got = await answer(pool, the_archive, customer)
                _as_json(got)
                return got
            except Exception as error:
                raised.append(error)
                raise

        async def ask_for_a_statement() -> None:
            customer = next(customers)
            returned.append((customer, await ask(f"/customers/{customer}/statement")))

        pool = await asyncpg.create_pool(dsn, min_size=SIZE, max_size=SIZE)
        try:
            for customer in CUSTOMERS:  # before an answer can empty the pool
                rows = await pool.fetch(old.ORDERS, customer)
                texts[customer] = "\n".join(f"{row['id']}: {row['amount']}" for row in rows)
            with archive() as (the_archive, kept):
                async with served(app) as url, outside(url) as ask:
                    load.offer("order", lambda: ask("/orders/7"), rate=100)
                    load.offer("statement", ask_for_a_statement, rate=6)
                    await load.run(seconds=1)
                if not raised:
                    async with another_order(dsn, NEWCOMER, datetime.now(UTC)):
                        alone.update(await _alone(pool, the_archive, answer))
        finally:
            pool.terminate()  # not close(), which waits for what never comes back

    run = lab.measure(your_endpoint, threshold_ms=THRESHOLD_MS)
    return judge(run, returned, raised, texts, kept, alone)


def judge(
    run: lab.Run,
    returned: list[tuple[int, Any]],
    raised: list[Exception],
    texts: dict[int, str],
    kept: dict[int, str],
    alone: dict[str, Look],
) -> lab.Verdict:
    """First what went wrong, then what was returned and kept, then what held the loop."""
    for error in raised:
        if isinstance(error, lab.LabError):  # it never ended
            raise error
        raise lab.LabError(f"a statement: {type(error).__name__}: {error}")
    if failed := run.failed("statement"):
        said = run.requests[run.requests.offer == "statement"].error.dropna().iloc[0]
        raise lab.LabError(f"{failed} statements got no answer over HTTP: {said}")
    numbers: set[Any] = set()
    for customer, got in returned:
        text = texts[customer]
        if not isinstance(got, dict) or set(got) != {"orders", "signature", "kept_as"}:
            raise NotYet(f"expected a dict of orders, signature and kept_as, and got {got!r:.100}.")
        for what, right in ("orders", len(text.splitlines())), ("signature", old.sign(text)):
            if got[what] != right:
                raise NotYet(
                    f"for customer {customer}, {what!r} is {got[what]!r:.100}. The old one returns "
                    f"{right!r}."
                )
        number = got["kept_as"]
        if type(number) is not int or kept.get(number) != text:
            raise NotYet(
                f"kept_as is {number!r:.100}, and the archive has no such statement under that "
                f"number. Expected the whole number that `archive.keep` returns when it is safe."
            )
        numbers.add(number)
    if len(numbers) < len(returned):
        raise NotYet(
            f"{len(returned)} statements were made, and {len(numbers)} were kept: each has to be "
            f"kept under a number of its own."
        )
    if len(kept) != (made := len(returned) + 1):  # and the one that was made alone
        raise NotYet(
            f"{made} statements were made, and the archive has {len(kept)}: keep each of them once."
        )
    if kept[made] == texts[NEWCOMER]:
        raise NotYet(
            f"an order of customer {NEWCOMER} had come in since the last statement, and the next "
            f"one was still without it: your answer remembers."
        )
    for what, (in_use, _, seconds) in alone.items():
        if in_use:
            raise by_the_clock(
                run,
                1e3 * seconds,
                f"a text had been {what}, and {in_use}. Give it back before you sign and keep, as "
                f"the old one does.",
            )
    p99 = f"The p99 of one row, over HTTP: {run.latency().p99:.0f} ms."
    if lines := [f"\n  {what} at {line}" for what, (_, line, _) in alone.items() if line]:
        raise NotYet(
            f"these lines keep the loop's thread while a text is signed or kept. However short "
            f"that is, nobody else is served meanwhile:{''.join(lines)}\n{p99}"
        )
    # Nothing but the answer can hold this loop. One such stall may be the machine's, unless it is
    # known for sure that a line of the answer's waited or ran.
    stalls = [s for s in run.stalls if s.thread is None and s.cause != "unknown"]
    stalls = sorted((s for s in stalls if s.own_ms >= THRESHOLD_MS), key=lambda s: s.own_ms)
    if proved := [*stalls[:-1], *filter(_is_the_answers, stalls[-1:])]:
        least = max(stall.own_ms for stall in proved)
        often = f"{len(stalls)} times" if len(stalls) > 1 else "once"
        seen = (
            f"The loop was held {often} for {THRESHOLD_MS} ms or more, in {made} statements. {p99}"
        )
        by_line = {str(s.frame): str(s) for s in stalls}
        seen = "\n  ".join([f"{seen} The lines:", *by_line.values()])
        raise by_the_clock(run, least, seen, least / THRESHOLD_MS)
    held = f"Nothing on its thread was seen to hold the loop for {THRESHOLD_MS} ms or more."
    if stalls:
        held = f"One stall on the service's loop, and nothing proves it your answer's: {stalls[0]}."
    return lab.Verdict(
        "pass",
        f"{len(returned)} statements over HTTP, all right and all kept. {held} One row meanwhile: "
        f"{run.latency()}.",
    )


def _as_json(got: object) -> None:
    """Do what FastAPI will do with what an answer returned; if that fails, say why."""
    parts = {"what you returned": got}
    if isinstance(got, dict):
        parts = {f"{key!r}": it for key, it in got.items()}
    for what, it in parts.items():
        try:
            it if isinstance(it, Response) else JSONResponse(jsonable_encoder(it))
        except Exception:
            missing = " Is an `await` missing?" if inspect.isawaitable(it) else ""
            if inspect.iscoroutine(it):
                it.close()  # else Python warns
            raise NotYet(
                f"{what} is of type {type(it).__name__}, and {it!r:.80} cannot go out as "
                f"JSON.{missing} Expected what the old one returns."
            ) from None


async def _alone(pool: asyncpg.Pool, the_archive: old.Archive, answer: Answer) -> dict[str, Look]:
    """Call the answer once more, alone, and look when it signs, and when it keeps."""
    looks: dict[str, Look] = {}
    empty = f"{SIZE} such requests, and the pool of {SIZE} is empty"
    loops_thread = threading.get_ident()

    def in_use() -> str:
        if borrowed := pool.get_size() - pool.get_idle_size():
            return f"{borrowed} connection of the pool was still borrowed: {empty}"
        if own := sum(not connection.is_closed() for connection in new):
            return f"{own} connection beside the pool was still open: one for each request"
        return ""

    def look(what: str) -> None:  # on any thread but the loop's
        # What is kept for this cannot come back before it ends; what is not, does.
        until = time.monotonic() + GIVEN_BACK
        while (used := in_use()) and time.monotonic() < until:
            time.sleep(0.005)
        looks[what] = used, "", GIVEN_BACK

    def looking(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def looks_then(*args: Any, **options: Any) -> Any:
            frame = users_frame(walk(sys._getframe(1)))
            result = function(*args, **options)
            if frame and threading.get_ident() == loops_thread:
                looks[what] = "", f"{frame}: {linecache.getline(*frame[:2]).strip()}", 0.0
            else:
                look(what)
            return result

        return looks_then

    def submit(*args: Any, **options: Any) -> Any:
        job = submit_it(*args, **options)
        job.add_done_callback(on_done)  # the first: so whoever waits for the job goes on after it
        return job

    def on_done(job: object) -> None:
        if threading.get_ident() != loops_thread:  # there, nothing could come back meanwhile
            look("in the hands of another process")

    submit_it = ProcessPoolExecutor.submit
    signs = patch.object(hashlib, "pbkdf2_hmac", looking("signed", hashlib.pbkdf2_hmac))
    keeps = patch.object(old.Archive, "keep", looking("kept", old.Archive.keep))
    is_kept = patch.object(web, "make_safe", looking("kept", web.make_safe))
    submits = patch.object(ProcessPoolExecutor, "submit", submit)
    began = time.thread_time()
    old.sign("")
    a_signature = time.thread_time() - began
    async with rests_of(pool, database(), lambda: new) as rests:
        began = time.thread_time()
        with signs, keeps, is_kept, submits, opened() as new:
            await answer(pool, the_archive, NEWCOMER)
        cpu = time.thread_time() - began
    if (rested := longest(rests)) > a_signature / 2:
        kept = f"for {1e3 * rested:.0f} ms a connection was kept that was asked nothing: {empty}"
        looks["read"] = kept, "", rested
    elif cpu > 2 * a_signature:
        raise NotYet(
            f"alone, a statement took {1e3 * cpu:.0f} ms of CPU time on the loop's thread, and a "
            f"signature takes {1e3 * a_signature:.0f} ms. In one piece or in many, the loop serves "
            f"nobody else in that time."
        )
    return looks


def _is_the_answers(stall: Stall) -> bool:
    """Whether it is proved that a line of the answer's held the loop, and not the machine.

    On a busy one it may take a while until a thread has started, and asyncio has sent something.
    """
    frame = stall.frame
    if frame is None or not is_users(frame) or Path(__file__).parent in Path(frame.file).parents:
        return False
    starts_a_thread = any(it.function == "start" for it in stall.stack)
    imports = any(it.file.startswith("<frozen importlib") for it in stall.stack)  # once
    sends = stall.stack[-1].file.startswith(str(Path(asyncio.__file__).parent))
    known = stall.cause in ("blocked", "computing") and not stall.approximate
    there = stall.share * stall.own_ms >= THRESHOLD_MS
    return known and there and not (starts_a_thread or imports or sends)


def chart(run: lab.Run) -> None:
    """The cheap endpoint, while statements were made."""
    lab.timeline(run)
