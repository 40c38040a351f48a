"""The culprits' good twins: each returns what its namesake in `blockers` returns."""

import asyncio
import hashlib
import json
import re
import sqlite3
import time
from contextlib import closing
from typing import Any

from mystery.service import LOOKUP, Service


async def synchronous_driver(service: Service) -> Any:
    """How many orders a customer has."""
    orders = "SELECT count(*) FROM labkit.orders, pg_sleep(0.08) WHERE customer = 42"
    return (await service.pool.fetchval(orders),)


async def sleeping_retry(service: Service) -> Any:
    """What an order cost; an order that is not there yet may come in a moment."""
    for order in (0, 7):
        amount = await service.pool.fetchval(LOOKUP, order)
        if amount is not None:
            break
        await asyncio.sleep(0.09)
    return amount


async def embedded_database(service: Service) -> Any:
    """Count how often each day of the week comes up."""
    return await asyncio.to_thread(embedded_database_part)


def embedded_database_part() -> Any:
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
        if one % 20 == 0:
            await asyncio.sleep(0)  # let the others have a turn
    return best


async def large_json(service: Service) -> str:
    """The catalogue's checksum: has it changed since the last time?"""
    checksum = hashlib.sha256(b"[")
    for first in range(0, len(service.catalogue), 500):
        part = json.dumps(service.catalogue[first : first + 500])[1:-1]
        checksum.update(f"{', ' * (first > 0)}{part}".encode())
        await asyncio.sleep(0)  # let the others have a turn
    checksum.update(b"]")
    return checksum.hexdigest()


async def slow_hash(service: Service) -> str:
    """Sign a voucher."""
    await service.lookup()
    # On another thread: hashlib lets go of the interpreter while it computes.
    sign = hashlib.pbkdf2_hmac
    return (await asyncio.to_thread(sign, "sha256", b"voucher 7", b"salt", 360_000)).hex()


async def backtracking_pattern(service: Service) -> int:
    """How many of these are addresses to write to."""
    good = 0
    for address in ("nobody-in-particular", "somebody-at-some-end", "someone-without-at"):
        good += re.fullmatch(r"[\w-]+@\w+", address) is not None
    return good


async def garbage_collection(service: Service) -> int:
    """How many sessions there are; when to look for garbage is Python's own affair."""
    return len(service.sessions)


async def greedy_thread(service: Service) -> str:
    """The catalogue's checksum, by a thread that the loop need not wait for."""
    return await asyncio.to_thread(greedy_thread_part, service)


def greedy_thread_part(service: Service) -> str:
    checksum = hashlib.sha256(b"[")
    for first in range(0, len(service.catalogue), 500):
        part = json.dumps(service.catalogue[first : first + 500])[1:-1]
        checksum.update(f"{', ' * (first > 0)}{part}".encode())
        time.sleep(0.001)  # on this thread it holds nobody, and hands over the interpreter
    checksum.update(b"]")
    return checksum.hexdigest()


async def crowd(service: Service) -> int:
    """The weights of sixty parcels, one after the other."""
    weight = 0
    for parcel in range(60):
        weight += await crowd_part(parcel)
        await asyncio.sleep(0)  # let the others have a turn
    return weight


async def crowd_part(parcel: int) -> int:
    weight = 0
    for gram in range(22_000):
        weight += parcel * gram % 7
    return weight


async def kept_connection(service: Service) -> Any:
    """What an order cost, once the bank has nodded."""
    amount = await service.pool.fetchval(LOOKUP, 7)
    await asyncio.sleep(0.06)  # the bank
    return amount


async def ungated_crowd(service: Service) -> list[Any]:
    """Thirty letters; the server needs 20 ms for each."""
    return await asyncio.gather(*(ungated_crowd_part(service, order) for order in range(1, 31)))


async def ungated_crowd_part(service: Service, order: int) -> Any:
    letter = "SELECT id FROM labkit.orders, pg_sleep(0.02) WHERE id = $1"
    async with service.gate:  # has fewer places than the pool has connections
        return await service.pool.fetchval(letter, order)


async def kept_lock(service: Service) -> Any:
    """Reserve an order once the bank has nodded."""
    await asyncio.sleep(0.03)  # the bank
    async with service.pool.acquire() as connection, connection.transaction():
        return await connection.fetchval(f"{LOOKUP} FOR UPDATE", 11)


async def second_connection(service: Service) -> Any:
    """How many orders the customer of an order has."""
    async with service.pool.acquire() as connection, asyncio.timeout(0.15):
        customer = await connection.fetchval("SELECT customer FROM labkit.orders WHERE id = 7")
        orders = "SELECT count(*) FROM labkit.orders WHERE customer = $1"
        return await connection.fetchval(orders, customer)
