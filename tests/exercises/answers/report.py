"""Answers to the exercise "report" of notebook 01."""

import asyncio
import contextlib
import functools
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing import Pipe
from queue import SimpleQueue
from urllib.parse import urlsplit

import asyncpg
import pandas as pd
import psycopg2
from legacy import monthly_report

from tests.exercises.answers import Case

MONTHS = monthly_report.MONTHS.replace("%s", "$1")


def dsn_of(pool):
    return pool._connect_args[0]


async def calls_the_old_module(pool, customer):
    return monthly_report.monthly_orders(dsn_of(pool), customer)


async def keeps_the_pause(pool, customer):
    time.sleep(0.08)
    return {row["month"]: row["count"] for row in await pool.fetch(MONTHS, customer)}


async def returns_records(pool, customer):
    return await pool.fetch(MONTHS, customer)


async def returns_a_series(pool, customer):
    return pd.Series({row["month"]: row["count"] for row in await pool.fetch(MONTHS, customer)})


async def raises(pool, customer):
    return await pool.fetch(monthly_report.MONTHS, customer)


def forgets_async(pool, customer):
    return monthly_report.monthly_orders(dsn_of(pool), customer)


async def uses_a_thread(pool, customer):
    return await asyncio.to_thread(monthly_report.monthly_orders, dsn_of(pool), customer)


async def asks_asyncpg(pool, customer):
    return {row["month"]: row["count"] for row in await pool.fetch(MONTHS, customer)}


connections: dict[str, object] = {}


async def keeps_a_connection_of_psycopg2(pool, customer):
    """Half a millisecond on the loop, and no stall that a probe would report."""
    dsn = dsn_of(pool)
    if dsn not in connections:
        connections[dsn] = await asyncio.to_thread(psycopg2.connect, dsn)
    with connections[dsn].cursor() as cursor:
        cursor.execute(monthly_report.MONTHS, (customer,))
        rows = dict(cursor.fetchall())
    await asyncio.sleep(0.08)
    return rows


async def pauses_briefly(pool, customer):
    time.sleep(0.001)
    return await asks_asyncpg(pool, customer)


executor = ThreadPoolExecutor(2)


async def waits_for_its_thread(pool, customer):
    """The work is on another thread; and the loop's thread waits for that."""
    return executor.submit(monthly_report.monthly_orders, dsn_of(pool), customer).result()


async def asks_another_program(pool, customer):
    subprocess.run([sys.executable, "--version"], stdout=subprocess.DEVNULL)
    return await asks_asyncpg(pool, customer)


async def asks_another_driver(pool, customer):
    with closing(sqlite3.connect(":memory:")) as cache:
        cache.execute("SELECT 1")
    return await asks_asyncpg(pool, customer)


async def asks_another_service(pool, customer):
    with contextlib.suppress(OSError):
        urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)
    return await asks_asyncpg(pool, customer)


async def reads_a_file(pool, customer):
    """However big it is, and whether the disk has to turn: nobody knows."""
    with open(monthly_report.__file__, "rb") as file:
        file.read()
    return await asks_asyncpg(pool, customer)


answers: dict[int, object] = {}


async def remembers(pool, customer):
    if customer not in answers:
        answers[customer] = await asks_asyncpg(pool, customer)
    return answers[customer]


async def remembers_and_keeps_the_pause(pool, customer):
    """Waits, but for nobody."""
    await asyncio.sleep(0.08)
    return await remembers(pool, customer)


threads = ThreadPoolExecutor(1)
by_thread: dict[str, object] = {}


def ask_psycopg2(dsn, customer):
    if dsn not in by_thread:
        by_thread[dsn] = psycopg2.connect(dsn)
    with by_thread[dsn].cursor() as cursor:
        cursor.execute(monthly_report.MONTHS, (customer,))
        return dict(cursor.fetchall())


async def waits_for_its_warm_thread(pool, customer):
    """A millisecond on the loop: the connection is there already."""
    dsn = dsn_of(pool)
    await asyncio.wrap_future(threads.submit(ask_psycopg2, dsn, customer))
    return threads.submit(ask_psycopg2, dsn, customer).result()


async def joins_its_warm_thread(pool, customer):
    """The same, of a thread that it has made itself."""
    dsn = dsn_of(pool)
    await asyncio.wrap_future(threads.submit(ask_psycopg2, dsn, customer))
    months = []
    thread = threading.Thread(target=lambda: months.append(ask_psycopg2(dsn, customer)))
    thread.start()
    thread.join()
    return months[0]


class Report:
    """Another style: an object that can be called."""

    __name__ = "an_object"

    async def __call__(self, pool, customer):
        return await asks_asyncpg(pool, customer)


def logged(answer):
    @functools.wraps(answer)
    def call(*args):
        return answer(*args)

    return call


@logged
async def is_decorated(pool, customer):
    return await asks_asyncpg(pool, customer)


async def joins_what_has_ended(pool, customer):
    dsn = dsn_of(pool)
    thread = threading.Thread(target=ask_psycopg2, args=(dsn, customer))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)
    thread.join()
    return await asks_asyncpg(pool, customer)


async def leaves_its_connection_open(pool, customer):
    connection = await asyncpg.connect(dsn_of(pool))
    return {row["month"]: row["count"] for row in await connection.fetch(MONTHS, customer)}


async def limits_the_old_module(pool, customer):
    """In asyncio's hands, and on the loop's thread all the same."""
    return await asyncio.wait_for(calls_the_old_module(pool, customer), 5)


async def begins_with_the_newest(pool, customer):
    rows = await pool.fetch(MONTHS.replace("ORDER BY month", "ORDER BY month DESC"), customer)
    return {row["month"]: row["count"] for row in rows}


async def computes(pool, customer):
    """In Python alone: no call that is written in C, and no wait."""
    number = 0
    while number < 6_000_000:
        number += 1
    return await asks_asyncpg(pool, customer)


async def waits_as_one_should(pool, customer):
    """Sockets, a subprocess, threads and an import, and none of them keeps the loop."""
    import wave  # noqa: F401

    address = urlsplit(dsn_of(pool)[:])
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.close()
    await writer.wait_closed()
    python = await asyncio.create_subprocess_exec(
        sys.executable, "--version", stdout=subprocess.DEVNULL
    )
    await python.wait()
    await asyncio.wrap_future(executor.submit(time.sleep, 0.01))
    with ThreadPoolExecutor() as other:
        await asyncio.get_running_loop().run_in_executor(other, time.sleep, 0.01)
    return await asks_asyncpg(pool, customer)


by_newest: dict[object, object] = {}


async def remembers_until_there_is_a_newer_one(pool, customer):
    """An order that comes in need not be the newest."""
    newest = "SELECT max(created_at) FROM labkit.orders WHERE customer = $1"
    key = customer, await pool.fetchval(newest, customer)
    if key not in by_newest:
        by_newest[key] = await asks_asyncpg(pool, customer)
    return by_newest[key]


async def waits_for_a_lock(pool, customer):
    """What the thread has done, a lock says: and the loop's thread waits for it."""
    done = threading.Lock()
    done.acquire()
    executor.submit(lambda: (time.sleep(0.01), done.release()))
    done.acquire()
    return await asks_asyncpg(pool, customer)


async def waits_for_a_queue(pool, customer):
    done = SimpleQueue()
    executor.submit(lambda: (time.sleep(0.01), done.put(customer)))
    return await asks_asyncpg(pool, done.get())


async def polls(pool, customer):
    """Another style: what may wait, and is told not to."""
    time.sleep(0)
    python = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", "pass"])
    here, there = Pipe()
    executor.submit(lambda: (time.sleep(0.01), there.send(customer)))
    while python.poll() is None or not here.poll():
        await asyncio.sleep(0.005)
    return await asks_asyncpg(pool, here.recv())


KEEPS = "these lines of your report keep the loop's thread.*: "

CASES = [
    Case(
        calls_the_old_module,
        "not yet",
        "loop's thread.* monthly_report\\.py:.*\\(_connect\\).*\\(sleep\\)",
    ),
    Case(keeps_the_pause, "not yet", KEEPS + r"time\.sleep\(0\.08\) \(sleep\)"),
    Case(returns_records, "not yet", r"a dict as the old report's, {'2025.*\[<Record"),
    Case(returns_a_series, "not yet", r"a dict as the old report's, {'2025.*dtype: int64"),
    Case(keeps_a_connection_of_psycopg2, "not yet", KEEPS + r".*\(cursor\.execute\)"),
    Case(pauses_briefly, "not yet", KEEPS + r"time\.sleep\(0\.001\)"),
    Case(waits_for_its_thread, "not yet", KEEPS + r"return executor\.submit.*acquire\)"),
    Case(asks_another_program, "not yet", KEEPS + r"subprocess\.run"),
    Case(asks_another_driver, "not yet", KEEPS + r".*cache\.execute.*\(Connection\.execute\)"),
    Case(asks_another_service, "not yet", KEEPS + r".*\(socket\.connect\)"),
    Case(reads_a_file, "not yet", KEEPS + r"with open\(monthly_report.* \(open\)"),
    Case(  # the second, where it remembers of an earlier check
        remembers,
        "not yet",
        r"customer \d+ had come in since the last call|returned without giving the loop back once",
    ),
    Case(
        computes,
        "not yet",
        r"\d+ stalls in 8 reports, the longest: \d+ ms, .* report\.py:\d+ in computes",
        by_the_clock=True,
    ),
    Case(waits_as_one_should, "pass", "14 reports, all right, and none was seen to keep"),
    Case(raises, "raised", "a report, alone: PostgresSyntaxError"),
    Case(
        forgets_async, "not yet", r"returned \{.*, which cannot be awaited\. Expected a coroutine"
    ),
    Case(remembers_and_keeps_the_pause, "not yet", r"was still \{'2031-06': 1\}: it remembers"),
    Case(waits_for_its_warm_thread, "not yet", KEEPS + r"return threads\.submit.*acquire\)"),
    Case(joins_its_warm_thread, "not yet", KEEPS + r"thread\.join\(\) \("),
    Case(limits_the_old_module, "not yet", KEEPS + r"time\.sleep\(0\.08\) .*\(cursor\.execute\)"),
    Case(
        remembers_until_there_is_a_newer_one, "not yet", r"report was still \{'2031-06': 1\}: it re"
    ),
    Case(waits_for_a_lock, "not yet", KEEPS + r"done\.acquire\(\) \(lock\.acquire\)"),
    Case(waits_for_a_queue, "not yet", KEEPS + r".*done\.get\(\).* \(SimpleQueue\.get\)"),
    Case(polls, "pass", "14 reports, all right"),
    Case(joins_what_has_ended, "pass", "14 reports, all right"),
    Case(leaves_its_connection_open, "not yet", "14 reports opened 14 connections that they did"),
    Case(begins_with_the_newest, "not yet", "customer 42 the numbers are right, but not"),
    Case(Report(), "pass", "14 reports, all right"),
    Case(is_decorated, "pass", "14 reports, all right"),
    Case(uses_a_thread, "pass", "14 reports, all right"),
]
