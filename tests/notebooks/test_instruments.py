"""The instruments of notebooks 03, 04 and 05, which measure and are not the lesson."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import pytest
from instruments.debug_mode import in_debug_mode, slow_callbacks
from instruments.ended_in import ended_in
from instruments.saturation import saturate, sweep
from instruments.scratch_table import scratch_table
from instruments.story import Run, Steps, on_one_connection, outcome

import labkit as lab
from labkit.errors import LabError
from labkit.measure.run import DEBUG
from labkit.server import Dsn, session
from tests.server.test_database import SECRET, at
from tests.server.test_database import run as run_sql


def test_a_story_has_a_row_for_each_step_and_for_what_is_left(dsn: Dsn) -> None:
    async def story(connection: asyncpg.Connection, run: Run, steps: Steps) -> None:
        await run("one", "INSERT INTO notes VALUES ('a')")
        steps.append(("two", "asks nonsense", await outcome(connection.execute("nonsense"))))
        await run("one", "INSERT INTO notes VALUES ('b')")

    told = asyncio.run(on_one_connection(dsn, story))
    assert ["one", "two", "one", "anybody"] == list(told["who"])
    first, second, third, left = told["what came of it"]
    assert ("INSERT 0 1", "INSERT 0 1", "a, b") == (first, third, left)
    assert second.startswith("PostgresSyntaxError: syntax error")


def test_a_story_can_be_told_through_something_and_may_leave_nothing(dsn: Dsn) -> None:
    asked: list[str] = []

    class Wrapped:
        def __init__(self, connection: asyncpg.Connection) -> None:
            self.connection = connection

        async def execute(self, statement: str) -> Any:
            asked.append(statement)
            return await self.connection.execute(statement)

    async def story(connection: asyncpg.Connection, run: Run, steps: Steps) -> None:
        await run("one", "BEGIN")

    told = asyncio.run(on_one_connection(dsn, story, wrap=Wrapped))
    assert ["BEGIN"] == asked
    assert ["BEGIN", "nothing"] == list(told["what came of it"])


def test_a_scratch_table_takes_no_other_table_s_place(dsn: Dsn) -> None:
    async def twice(left: str) -> int:
        """What is in a scratch table whose name has been taken by what a statement left."""
        async with session(dsn) as connection:
            await connection.execute(left)
        try:
            async with scratch_table(dsn, "taken", "it text") as keeper:
                return int(await keeper.fetchval("SELECT count(*) FROM labkit.taken"))
        finally:
            async with session(dsn) as connection:
                await connection.execute("DROP TABLE IF EXISTS labkit.taken")

    theirs = "CREATE TABLE labkit.taken AS SELECT 'precious' AS it"
    with pytest.raises(LabError, match="taken was left as it is"):
        asyncio.run(twice(theirs))
    ours = f"{theirs}; COMMENT ON TABLE labkit.taken IS 'labkit scratch table'"
    assert asyncio.run(twice(ours)) == 0


def test_debug_mode_warns_of_the_long_callbacks_of_one_offer_without_directories() -> None:
    async def scenario(load: lab.Load) -> None:
        async def work(seconds: float) -> None:
            time.sleep(seconds)

        load.offer("quick", lambda: work(0), rate=50)
        load.offer("long", lambda: work(0.08), rate=10)
        await load.run(seconds=0.3)

    run = lab.measure(in_debug_mode(scenario))
    assert run.invalid == DEBUG
    assert "scenario, in debug mode" == run.name
    warnings = slow_callbacks(run, "long")
    assert 3 == len(warnings)
    assert not [text for text in warnings if "/" in text or "\\" in text]


def test_of_the_requests_that_share_a_stall_each_is_counted() -> None:
    async def scenario(load: lab.Load) -> None:
        async def work() -> None:
            time.sleep(0.08)

        load.offer("guilty", work, rate=2, burst=3)
        await load.run(seconds=0.6)

    run = lab.measure(scenario)
    guilty = run.requests_of("guilty")
    assert len(run.stalls) < 3
    assert 3 == len(guilty) == ended_in(run.stalls, guilty)
    later = guilty.assign(intended_s=guilty.intended_s + 10)
    assert 0 == ended_in(run.stalls, later) == ended_in([], guilty)


def test_each_round_saturates_each_size_with_each_query_and_littles_law_holds(dsn: Dsn) -> None:
    sizes, queries = [1, 4], {"waits": "SELECT pg_sleep(0.02)", "answers": "SELECT 1"}
    table = asyncio.run(sweep(dsn, queries, sizes, rounds=3))
    seen = sorted(zip(table["the query"], table.connections, table["round"], strict=True))
    assert sorted((q, size, turn) for q in queries for size in sizes for turn in (0, 1, 2)) == seen
    waits = table[table["the query"] == "waits"].groupby("connections").median(numeric_only=True)
    inside = waits["per second"] * waits["held (ms)"] / 1e3
    assert (0.7 * waits["busy, counted"] < inside).all()
    assert (inside < 1.4 * waits["busy, counted"]).all()
    assert waits["per second"][4] > 2 * waits["per second"][1]


def test_who_waits_for_the_only_connection_is_counted_in_acquire(dsn: Dsn) -> None:
    figures = asyncio.run(saturate(dsn, "SELECT pg_sleep(0.02)", 1, seconds=0.3))
    assert figures["acquire (ms)"] > 5 * figures["held (ms)"]  # 39 of 40 clients wait
    # On a busy machine, the next has it before the one before goes on.
    assert figures["busy, counted"] == pytest.approx(1, abs=0.3)


def test_what_is_under_way_at_the_end_of_a_count_is_not_lost(dsn: Dsn) -> None:
    """Forty queries of 0.1 s in 0.4 s: one quarter was missing."""
    figures = asyncio.run(saturate(dsn, "SELECT pg_sleep(0.1)", 40, seconds=0.4))
    inside = figures["per second"] * (figures["acquire (ms)"] + figures["held (ms)"]) / 1e3
    assert inside == pytest.approx(40, rel=0.1)  # by Little's law: nobody pauses between two


def test_a_pool_that_is_too_large_for_the_server_is_refused(dsn: Dsn) -> None:
    run_sql(dsn, f"CREATE ROLE few LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 2")
    try:
        url = Dsn(at(dsn, "few"))
        with pytest.raises(LabError, match=r"no room for a pool of 3 connections: .* Expected"):
            asyncio.run(sweep(url, {"answers": "SELECT 1"}, [3], rounds=1))
    finally:
        run_sql(dsn, "DROP ROLE few")
