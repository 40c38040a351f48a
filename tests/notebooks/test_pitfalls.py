"""What notebook 07 shows, where its own claims do not: the lessons' modules, one by one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg2
import pytest
from instruments import witness
from instruments.stock import meeting, stock, watching
from pitfalls import kept_connections
from pitfalls.host_names import by_name
from pitfalls.log_to_database import DatabaseHandler
from pitfalls.watched_executor import WatchedExecutor

import labkit as lab
from labkit.exercises import notebooks
from labkit.server import Dsn


def program(dsn: Dsn, *command: str) -> Any:
    """What a lesson's program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=notebooks(),
        env=os.environ | {"DATABASE_URL": dsn[:]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def ruff(*what: str, text: str | None = None) -> list[str]:
    """The rules that ruff finds broken, with the lesson's configuration."""
    command = ["-m", "ruff", "check", "--no-cache", "--quiet", "--output-format", "json"]
    config = ["--config", "pitfalls/sync_drivers.toml"]
    done = subprocess.run(
        [sys.executable, *command, *config, *what],
        cwd=notebooks(),
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return [f"{finding['code']} {finding['message']}" for finding in json.loads(done.stdout)]


@pytest.mark.parametrize(
    "code",
    [
        "import psycopg2",
        "import psycopg2 as pg",
        "from psycopg2.extras import RealDictCursor",
        "def late():\n    import sqlite3",
        "import redis\nredis.Redis()",
        "from asyncpg import connect",
        "import asyncpg\nasync def f():\n    await asyncpg.connect()",
    ],
)
def test_the_ban_finds_a_driver_wherever_it_is_imported(code: str) -> None:
    assert any(found.startswith("TID251") for found in ruff("-", text=code))


@pytest.mark.parametrize(
    "code",
    [
        "import asyncpg\nasync def f():\n    async with asyncpg.create_pool() as pool: ...",
        "import redis.asyncio\nredis.asyncio.Redis()",
        "# psycopg2 was here",
    ],
)
def test_the_ban_leaves_the_innocent_alone(code: str) -> None:
    assert [] == ruff("-", text=code)


def test_the_ban_finds_the_faults_of_the_service_and_none_in_its_repaired_twin() -> None:
    assert any("`psycopg2` is banned" in found for found in ruff("orders_service"))
    assert not any("`psycopg2` is banned" in found for found in ruff("orders_service_repaired"))


@pytest.fixture
def log_table(dsn: Dsn) -> Iterator[psycopg2.extensions.connection]:
    """The handler's table."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    connection.cursor().execute("CREATE TABLE labkit.log (message text)")
    yield connection
    connection.cursor().execute("DROP TABLE labkit.log")
    connection.close()


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("orders", logging.WARNING, "", 0, message, (7,), None)


def test_the_handler_keeps_a_record_with_its_arguments(
    dsn: Dsn, log_table: psycopg2.extensions.connection
) -> None:
    DatabaseHandler(dsn).handle(record("order %s is overdue"))
    cursor = log_table.cursor()
    cursor.execute("TABLE labkit.log")
    assert [("order 7 is overdue",)] == cursor.fetchall()


def test_the_handler_reports_a_failure_as_handlers_do(
    dsn: Dsn, capsys: pytest.CaptureFixture[str]
) -> None:
    DatabaseHandler(dsn).handle(record("there is no table for order %s"))
    assert 'relation "labkit.log" does not exist' in capsys.readouterr().err


def test_both_exports_give_the_same_and_only_one_keeps_the_rows(dsn: Dsn) -> None:
    whole, pieces = (
        program(dsn, "pitfalls/giant_result.py", how) for how in ("at_once", "in_batches")
    )
    assert whole["checksum"] == pieces["checksum"] > 0
    assert whole["memory (MB)"] >= 10 * pieces["memory (MB)"]
    # The figure is the process's own, not that of the (large) one which started it.
    assert whole["memory (MB)"] >= 0.9 * max(mb for _, mb in whole["over time"])
    assert whole["where"].startswith("giant_result.py")


def test_an_export_leaves_no_session(dsn: Dsn) -> None:
    program(witness.named(dsn, "giant_result"), "pitfalls/giant_result.py", "in_batches")
    connection = psycopg2.connect(dsn)
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'giant_result'")
    assert (0,) == cursor.fetchone()
    connection.close()


def test_a_pool_on_another_loop_fails_in_disguise_and_on_its_own_it_works(dsn: Dsn) -> None:
    seen = program(dsn, "pitfalls/wrong_loop.py")
    elsewhere, at_home = seen["on another loop"], seen["on the same loop"]
    disguised = [row for row in elsewhere if "another operation is in progress" in row["error"]]
    assert disguised
    assert all("attached to a different loop" in row["its __context__"] for row in disguised)
    assert elsewhere[-1]["error"] == "TimeoutError"
    assert [""] * len(at_home) == [row["error"] for row in at_home]


@pytest.mark.parametrize(
    ("name", "refused", "idle"),
    [
        ("PerOperation", 0, 5),
        ("OnSelf", 19, 4),
        ("BehindALock", 0, 4),
        ("InAGlobal", 19, 5),
        ("AboveTheFanOut", 19, 5),
    ],
)
def test_each_hiding_place_shows_where_the_notebook_says(
    dsn: Dsn, name: str, refused: int, idle: int
) -> None:
    place: Any = getattr(kept_connections, name)

    async def look() -> tuple[int, int]:
        async with (
            asyncpg.create_pool(dsn, min_size=5, max_size=5) as pool,
            place(dsn, pool) as desk,
        ):
            answers = await desk.amounts(range(1, 21))
            wrong = sum(isinstance(answer, asyncpg.InterfaceError) for answer in answers)
            return wrong, pool.get_idle_size()

    assert (refused, idle) == asyncio.run(look())


TAKE_ONE = "UPDATE labkit.stock SET available = available - 1"
ADD_COST = "UPDATE labkit.stock SET shipping = shipping + 5"


async def ship(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(TAKE_ONE)
        await asyncio.sleep(0.3)
        await connection.execute(ADD_COST)


async def ship_by_halves(pool: asyncpg.Pool) -> None:
    await pool.execute(TAKE_ONE)


async def send_back(pool: asyncpg.Pool) -> None:
    await pool.execute("UPDATE labkit.stock SET available = available + 1")


def test_a_meeting_says_who_was_served_and_who_was_refused(dsn: Dsn) -> None:
    met = asyncio.run(meeting(dsn, ship, send_back, 5, of_returns={"lock_timeout": "50ms"}))
    assert "done" == met["the shipment"]
    assert met["the others"].startswith("LockNotAvailableError")
    assert not met["half done"]


def test_a_meeting_sees_a_shipment_that_was_done_by_halves(dsn: Dsn) -> None:
    met = asyncio.run(meeting(dsn, ship_by_halves, send_back, 5))
    assert (5, True) == (met["returns served, of 5"], met["half done"])


def test_a_meeting_counts_no_return_that_changed_nothing_and_takes_any_price(dsn: Dsn) -> None:
    async def found_none(pool: asyncpg.Pool) -> str:
        tag: str = await pool.execute("UPDATE labkit.stock SET item = 1 WHERE item = 2")
        return tag

    async def ship_for_7(pool: asyncpg.Pool) -> None:
        await pool.execute(f"{TAKE_ONE}, shipping = shipping + 7")

    met = asyncio.run(meeting(dsn, ship_for_7, found_none, 7))
    assert (0, "UPDATE 0") == (met["returns served, of 5"], met["the others"])
    assert not met["half done"]
    assert asyncio.run(meeting(dsn, ship_for_7, found_none, 5))["half done"]  # or a part of it


def test_the_longest_queue_is_kept_with_the_session_that_holds_it_up(dsn: Dsn) -> None:
    name = "queue at the stock"
    who = """
        SELECT pid, pg_blocking_pids(pid) AS waits_for FROM pg_stat_activity
        WHERE application_name = $1 AND (state = 'idle in transaction' OR wait_event_type = 'Lock')
    """
    kept: list[asyncpg.Record] = []

    async def shop(load: lab.Load) -> None:
        nonlocal kept
        async with (
            stock(dsn) as keeper,
            asyncpg.create_pool(witness.named(dsn, name), min_size=4, max_size=4) as pool,
            watching(load, keeper, who, name) as kept,
        ):
            load.offer("shipment", lambda: ship(pool), rate=2)
            load.offer("sent back", lambda: send_back(pool), rate=10)
            await load.run(seconds=0.6)

    run = lab.measure(shop)
    free = {row["pid"] for row in kept if not row["waits_for"]}
    assert 1 == len(free) < len(kept)
    assert 1 == run.gauges["idle in transaction"].max()
    assert 0 == run.failed()


def test_the_watched_executor_lists_what_waits_for_a_thread_and_nothing_else() -> None:
    free = threading.Event()

    async def crowd() -> tuple[dict[str, int], dict[str, int], dict[str, int], list[object]]:
        executor = WatchedExecutor(1)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(executor)
        held = asyncio.ensure_future(asyncio.to_thread(free.wait))
        await asyncio.sleep(0)
        answered = asyncio.ensure_future(asyncio.to_thread(len, "four"))
        failed = loop.run_in_executor(None, int, "four")
        given_up = loop.run_in_executor(None, os.getpid)
        await asyncio.sleep(0)
        while executor.waiting["Event.wait"]:
            await asyncio.sleep(0)
        waited = dict(executor.waiting)
        given_up.cancel()
        await asyncio.sleep(0)
        left = dict(executor.waiting)
        free.set()
        answers = await asyncio.gather(held, answered, failed, return_exceptions=True)
        return waited, left, dict(executor.waiting), list(answers)

    waited, left, at_last, answers = asyncio.run(crowd())
    assert {"len": 1, "int": 1, "getpid": 1} == waited
    assert {"len": 1, "int": 1} == left
    assert {} == at_last
    assert [True, 4] == answers[:2]
    assert isinstance(answers[2], ValueError)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://lab:secret@127.0.0.1:54320/lab", {"host": "localhost", "port": 54320}),
        ("postgresql://lab@[::1]/lab", {"host": "localhost"}),
        ("postgresql://lab@10.0.0.5/lab", {"host": "167772165"}),
        ("postgresql://lab@db.example.com/lab", {}),
        ("postgresql://lab@10.0.0.5,10.0.0.6/lab", {}),
        ("postgresql://lab@127.0.0.1:1,127.0.0.1:2/lab", {}),
        ("postgresql://lab@[::1]:1,db:2,db/lab", {}),
        ("postgresql:///lab?host=/run/postgresql", {}),
    ],
)
def test_a_host_that_is_a_number_gets_a_name(url: str, host: dict[str, Any]) -> None:
    assert host == by_name(url)


def test_an_integer_is_looked_up_and_is_the_same_host() -> None:
    async def look_up() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(executor := WatchedExecutor(1))
        free = threading.Event()
        held = asyncio.ensure_future(asyncio.to_thread(free.wait))
        await asyncio.sleep(0)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        opening = asyncio.ensure_future(asyncio.open_connection(str(0x7F000001), port))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = ", ".join(executor.waiting)
        free.set()
        _, writer = await opening
        peer = writer.get_extra_info("peername")[0]
        writer.close()
        server.close()
        await held
        return waiting, peer

    assert ("getaddrinfo", "127.0.0.1") == asyncio.run(look_up())


def test_freezing_shortens_a_full_collection_and_keeps_what_was_dropped(dsn: Dsn) -> None:
    smaller = """
import asyncio, json
from pitfalls import large_cache
large_cache.ENTRIES, large_cache.REQUESTS, large_cache.ROWS = 200_000, 40, 2_500
print(json.dumps(asyncio.run(large_cache.main())))
"""
    seen = program(dsn, "-c", smaller)
    as_it_is, raised, frozen = seen["runs"]
    by_hand = "a full one by hand (ms)"
    assert as_it_is[by_hand] > 2 * frozen[by_hand]
    assert [0, 0, 1000] == [run["dropped, and kept"] for run in seen["runs"]]
    assert [0, 0, 0] == [run["after gc.unfreeze()"] for run in seen["runs"]]
    assert as_it_is["garbage waiting, at most"] < raised["garbage waiting, at most"]
    # One setting does not outlive its run.
    assert seen["thresholds"] == program(dsn, "-c", "import gc; print(list(gc.get_threshold()))")
