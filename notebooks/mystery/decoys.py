"""The innocent: each looks as if it were to blame, and is not. Why, stands in `deck`."""

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


async def blocking_name(service: Service) -> Any:
    """Block a card: the bank wants a moment."""
    await asyncio.sleep(0.05)  # the bank
    return await service.lookup()


async def long_loop(service: Service) -> int:
    """The check digit of a delivery."""
    digit = 0
    for position in range(15_000):
        digit = (digit + position) % 97
    return digit


async def sleep_in_a_thread(service: Service) -> None:
    """Wait for the printer, which has no asynchronous driver."""
    await asyncio.to_thread(time.sleep, 0.06)


async def driver_in_a_thread(service: Service) -> Any:
    """How many orders a customer has."""
    return await asyncio.to_thread(driver_in_a_thread_part, service.dsn)


def driver_in_a_thread_part(dsn: str) -> Any:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM labkit.orders, pg_sleep(0.08) WHERE customer = 42")
        return cursor.fetchone()


async def waiting_query(service: Service) -> Any:
    """A report on a cold table."""
    return await service.pool.fetchval("SELECT 1 FROM pg_sleep(0.12)")


async def long_wait(service: Service) -> Any:
    """What an order cost, as soon as the replica has caught up."""
    await asyncio.sleep(0.3)
    return await service.lookup()


async def small_json(service: Service) -> int:
    """The catalogue's first page."""
    return len(json.dumps(service.catalogue[:200]))


async def quiet_lock(service: Service) -> Any:
    """What an order cost; one at a time, for the printer's sake."""
    async with service.turn:
        return await service.lookup()


async def quick_hash(service: Service) -> str:
    """Sign a receipt."""
    return hashlib.pbkdf2_hmac("sha256", b"receipt 7", b"salt", 1_000).hex()


async def small_database(service: Service) -> Any:
    """Count how often each day of the week comes up."""
    days = """
        WITH RECURSIVE day(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM day WHERE n < 365)
        SELECT n % 7, count(*) FROM day GROUP BY 1
    """
    with closing(sqlite3.connect(":memory:")) as database:
        return database.execute(days).fetchall()


async def tame_pattern(service: Service) -> int:
    """How many of these are addresses to write to."""
    good = 0
    for address in ("nobody-in-particular@home", "somebody-at@work", "someone@somewhere"):
        good += re.fullmatch(r"([\w-]+)+@\w+", address) is not None
    return good


async def young_collection(service: Service) -> int:
    """Give back the memory of the last request."""
    return gc.collect(0)


async def gated_crowd(service: Service) -> list[Any]:
    """Six letters; the server needs 5 ms for each."""
    return await asyncio.gather(*(gated_crowd_part(service, order) for order in range(1, 7)))


async def gated_crowd_part(service: Service, order: int) -> Any:
    letter = "SELECT id FROM labkit.orders, pg_sleep(0.005) WHERE id = $1"
    async with service.gate:
        return await service.pool.fetchval(letter, order)


async def short_lock(service: Service) -> Any:
    """Reserve an order."""
    async with service.pool.acquire() as connection, connection.transaction():
        return await connection.fetchval(f"{LOOKUP} FOR UPDATE", 13)
