"""The culprits. What each is, and what repairs it, stands in `deck`; its good twin in `repairs`.

A case gives each another name, and a function that begins with a culprit's name goes with it.
"""

import asyncio
import gc
import hashlib
import json
import re
import sqlite3
import time
from contextlib import closing
from typing import Any

import psycopg2

from mystery.service import LOOKUP, Service

# These hold the loop.


async def synchronous_driver(service: Service) -> Any:
    """How many orders a customer has."""
    with closing(psycopg2.connect(service.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM labkit.orders, pg_sleep(0.08) WHERE customer = 42")
        return cursor.fetchone()


async def sleeping_retry(service: Service) -> Any:
    """What an order cost; an order that is not there yet may come in a moment."""
    for order in (0, 7):
        amount = await service.pool.fetchval(LOOKUP, order)
        if amount is not None:
            break
        time.sleep(0.09)
    return amount


async def embedded_database(service: Service) -> Any:
    """Count how often each day of the week comes up."""
    days = """
        WITH RECURSIVE day(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM day WHERE n < 160000)
        SELECT n % 7, count(*) FROM day GROUP BY 1
    """
    with closing(sqlite3.connect(":memory:")) as database:
        return database.execute(days).fetchall()


async def plain_python(service: Service) -> int:
    """Which two parcels fill the van best."""
    best = 0
    for one in range(1_300):
        for other in range(1_300):
            if best < one * other % 9_973:
                best = one * other % 9_973
    return best


async def large_json(service: Service) -> str:
    """The catalogue's checksum: has it changed since the last time?"""
    text = json.dumps(service.catalogue)
    return hashlib.sha256(text.encode()).hexdigest()


async def slow_hash(service: Service) -> str:
    """Sign a voucher."""
    await service.lookup()
    return hashlib.pbkdf2_hmac("sha256", b"voucher 7", b"salt", 360_000).hex()


async def backtracking_pattern(service: Service) -> int:
    """How many of these are addresses to write to."""
    good = 0
    for address in ("nobody-in-particular", "somebody-at-some-end", "someone-without-at"):
        good += re.fullmatch(r"([\w-]+)+@\w+", address) is not None
    return good


async def garbage_collection(service: Service) -> int:
    """How many sessions there are, with the memory of those that ended given back."""
    ended = gc.collect()
    return len(service.sessions) - ended


async def greedy_thread(service: Service) -> str:
    """The catalogue's checksum, by a thread that the loop need not wait for."""
    return await asyncio.to_thread(greedy_thread_part, service)


def greedy_thread_part(service: Service) -> str:
    text = json.dumps(service.catalogue)
    return hashlib.sha256(text.encode()).hexdigest()


async def crowd(service: Service) -> int:
    """The weights of sixty parcels, all at once."""
    return sum(await asyncio.gather(*(crowd_part(parcel) for parcel in range(60))))


async def crowd_part(parcel: int) -> int:
    weight = 0
    for gram in range(22_000):
        weight += parcel * gram % 7
    return weight


# These hold the pool.


async def kept_connection(service: Service) -> Any:
    """What an order cost, once the bank has nodded."""
    async with service.pool.acquire() as connection:
        amount = await connection.fetchval(LOOKUP, 7)
        await asyncio.sleep(0.06)  # the bank
        return amount


async def ungated_crowd(service: Service) -> list[Any]:
    """Thirty letters; the server needs 20 ms for each."""
    letter = "SELECT id FROM labkit.orders, pg_sleep(0.02) WHERE id = $1"
    letters = (service.pool.fetchval(letter, order) for order in range(1, 31))
    return await asyncio.gather(*letters)


async def kept_lock(service: Service) -> Any:
    """Reserve an order until the bank has nodded."""
    async with service.pool.acquire() as connection, connection.transaction():
        amount = await connection.fetchval(f"{LOOKUP} FOR UPDATE", 11)
        await asyncio.sleep(0.03)  # the bank
        return amount


async def second_connection(service: Service) -> Any:
    """How many orders the customer of an order has."""
    async with service.pool.acquire() as connection, asyncio.timeout(0.15):
        customer = await connection.fetchval("SELECT customer FROM labkit.orders WHERE id = 7")
        orders = "SELECT count(*) FROM labkit.orders WHERE customer = $1"
        return await service.pool.fetchval(orders, customer)
