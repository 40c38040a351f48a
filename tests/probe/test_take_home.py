"""What goes home beside the probe: the meter on the pool, and the fixture for tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import fastapi
import pytest

import labkit
from labkit.probe import Probe
from labkit.probe.frames import source
from labkit.probe.pool import PoolMeter
from labkit.probe.testing import no_stalls  # noqa: F401 (pytest finds a fixture by its name)
from labkit.server import Dsn


def test_the_meter_counts_who_waits_and_names_the_line_that_borrowed(dsn: Dsn) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool:
            its_class = type(pool)
            with PoolMeter(pool) as meter:

                async def hold() -> None:
                    async with pool.acquire() as connection:  # HERE
                        await connection.fetchval("SELECT pg_sleep(0.2)")

                tasks = [asyncio.create_task(hold(), name=f"hold {n}") for n in range(5)]
                await asyncio.sleep(0.1)
                seen = meter.as_dict()
                assert (2, 0, 3) == (seen["in_use"], seen["idle"], seen["waiting"])
                assert meter.longest
                assert "hold 0" == meter.longest.task
                line = hold.__code__.co_firstlineno + 1
                assert (__file__, line, "hold") == meter.longest.line
                await asyncio.gather(*tasks)
                assert 1 == await pool.fetchval("SELECT 1")
                assert 6 == sum(meter.buckets)
                assert 150 < meter.as_dict()["wait_p99_ms"] < 1500
                connection = await pool.acquire()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), pool.acquire(), pool.acquire():
                        pass
                await pool.release(connection)
                assert meter.longest is None
                assert 0 == meter.waiting
            assert its_class is type(pool)

    asyncio.run(main())


def test_the_meter_refuses_what_is_no_pool() -> None:
    wanted = r"was given a list\. Expected a pool"
    with pytest.raises(labkit.LabError, match=wanted), PoolMeter([]):
        pass


def test_a_pool_has_one_meter_and_behaves_as_without_it(dsn: Dsn) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
            another = PoolMeter(pool)
            with PoolMeter(pool):
                with pytest.raises(labkit.LabError, match="has a meter already"), another:
                    pass
                once: Any = pool.acquire()
                async with once:
                    with pytest.raises(asyncpg.InterfaceError, match="already acquired"):
                        await once.__aenter__()
                assert 1 == pool.get_idle_size()
            with another:
                assert 1 == await pool.fetchval("SELECT 1")
            assert 1 == another.as_dict()["idle"]

    asyncio.run(main())


def test_the_meter_enters_a_span_around_each_wait_and_each_use(dsn: Dsn) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def span(name: str) -> Iterator[None]:
        said.append(f"{name} begins")
        try:
            yield
        finally:
            said.append(f"{name} ends")

    wait, use = ["acquire begins", "acquire ends"], ["connection begins", "connection ends"]

    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
            with PoolMeter(pool, span) as meter:
                await pool.fetchval("SELECT 1")
                assert wait + use == said
                async with pool.acquire():
                    with pytest.raises(TimeoutError):
                        await pool.acquire(timeout=0.05)
                    assert [*wait, use[0], *wait] == said[4:]
                assert use[1] == said[-1]
                connection = await pool.acquire()  # still out when the block ends
                late = asyncio.create_task(pool.fetchval("SELECT 1"))  # and this still waits
                await asyncio.sleep(0.01)
            assert use[1] == said[-1]
            await pool.release(connection)
            await late
            assert said.count(use[0]) == said.count(use[1]) == 3
            assert meter.longest is None

    asyncio.run(main())


def test_no_stalls_lets_a_free_loop_pass(no_stalls: Any) -> None:  # noqa: F811
    async def main() -> None:
        with no_stalls(threshold_ms=20) as probe:
            await asyncio.sleep(0.05)
        assert [] == probe.stalls

    asyncio.run(main())


def test_no_stalls_names_the_line_that_held_the_loop_and_what_to_do(
    no_stalls: Any,  # noqa: F811
) -> None:
    async def main() -> None:
        with no_stalls(threshold_ms=20):
            time.sleep(0.06)

    at = r"at( or shortly before)? test_take_home\.py"
    said = rf"(?s)held for 20 ms or more:\n  \d+ ms, blocked, {at}.*To do: "
    with pytest.raises(AssertionError, match=said):
        asyncio.run(main())


def test_no_stalls_lets_an_error_of_the_block_through(no_stalls: Any) -> None:  # noqa: F811
    async def main() -> None:
        with no_stalls(threshold_ms=20):
            time.sleep(0.06)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_application_with_startup_handlers_keeps_them_beside_the_probe() -> None:
    app = fastapi.FastAPI()
    told = []
    app.on_event("startup")(lambda: told.append("up"))
    app.state.probe = Probe(threshold_ms=20)
    app.on_event("startup")(app.state.probe.__enter__)
    app.on_event("shutdown")(app.state.probe.__exit__)

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.01)
            time.sleep(0.05)  # HELD
            await asyncio.sleep(0.01)

    asyncio.run(serve())
    assert told == ["up"]
    assert "time.sleep(0.05)  # HELD" in {source(stall.line) for stall in app.state.probe.stalls}
