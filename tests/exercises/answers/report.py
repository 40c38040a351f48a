"""Answers to the exercise "report" of notebook 01."""

import asyncio
import time

import asyncpg
import legacy_report

from tests.exercises.answers import Case

MONTHS = legacy_report.MONTHS.replace("%s", "$1")


async def calls_the_old_module(dsn, customer):
    return legacy_report.monthly_orders(dsn, customer)


async def keeps_the_pause(dsn, customer):
    connection = await asyncpg.connect(dsn)
    try:
        time.sleep(0.08)
        return {row["month"]: row["count"] for row in await connection.fetch(MONTHS, customer)}
    finally:
        await connection.close()


async def returns_records(dsn, customer):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(MONTHS, customer)
    finally:
        await connection.close()


async def raises(dsn, customer):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(legacy_report.MONTHS, customer)
    finally:
        await connection.close()


def is_not_async(dsn, customer):
    return legacy_report.monthly_orders(dsn, customer)


async def uses_a_thread(dsn, customer):
    return await asyncio.to_thread(legacy_report.monthly_orders, dsn, customer)


CASES = [
    Case(calls_the_old_module, "not yet", r"held the loop 6 times .* legacy_report\.py:\d+"),
    Case(keeps_the_pause, "not yet", r"held the loop 8 times .* time\.sleep\(0\.08\)"),
    Case(returns_records, "not yet", "the loop stayed free, but for customer 42"),
    Case(raises, "raised", "8 of 8 reports: PostgresSyntaxError"),
    Case(is_not_async, "not yet", "Expected a coroutine function"),
    Case(uses_a_thread, "pass", "8 reports, all right"),
]
