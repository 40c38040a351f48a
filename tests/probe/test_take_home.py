"""What goes home beside the probe: the meter on the pool, and the fixture for tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
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


class ReleasesAtOnce:  # as aiopg's pool
    acquire = get_size = get_idle_size = release = lambda self: None


@pytest.mark.parametrize("given", [[], ReleasesAtOnce()])
def test_the_meter_refuses_what_is_no_pool_as_asyncpgs(given: object) -> None:
    wanted = rf"was given a {type(given).__name__}\. Expected a pool"
    with pytest.raises(labkit.LabError, match=wanted), PoolMeter(given):
        pass


class PoolOfTransactions(asyncpg.Pool):  # type: ignore[misc]
    @contextlib.asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> Any:
        connection = await super().acquire(timeout=timeout)
        try:
            async with connection.transaction():
                yield connection
        except asyncpg.DivisionByZeroError:
            raise ZeroDivisionError from None
        finally:
            await self.release(connection)


def test_a_pool_that_does_more_does_so_under_the_meter(dsn: Dsn) -> None:
    async def main() -> None:
        options = {"min_size": 1, "max_size": 2, "connection_class": asyncpg.Connection}
        options |= {"max_queries": 50_000, "max_inactive_connection_lifetime": 300.0}
        options |= {"record_class": asyncpg.Record, "loop": None}
        pool = PoolOfTransactions(dsn, **options)
        async with pool:
            with PoolMeter(pool) as meter:
                async with pool.acquire(1) as connection:
                    await connection.execute("CREATE TEMPORARY TABLE kept AS SELECT 1 AS one")
                async with pool.acquire(1) as connection:
                    assert 1 == await connection.fetchval("SELECT one FROM kept")
                with pytest.raises(ZeroDivisionError):
                    async with pool.acquire() as connection:
                        await connection.fetchval("SELECT 1 / 0")
                assert 3 == sum(meter.buckets)
                assert "nobody holds one" == meter.as_dict()["longest"]

    asyncio.run(main())


def test_the_meter_says_what_it_does_not_know(dsn: Dsn, monkeypatch: pytest.MonkeyPatch) -> None:
    async def takes_its_time(*_: object, **__: object) -> None:
        await asyncio.sleep(0.2)

    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool:
            earlier = await pool.acquire()
            with PoolMeter(pool) as meter:
                late = await pool.acquire()
                assert meter.as_dict()["longest"].startswith("not known: some were borrowed before")
                await pool.release(earlier)
                assert ", borrowed at " in meter.as_dict()["longest"]
            assert meter.as_dict()["longest"].startswith("not known")
            await pool.release(late)
            assert "nobody holds one" == meter.as_dict()["longest"]
            between = await pool.acquire()
            with meter:
                assert meter.as_dict()["longest"].startswith("not known")
                await pool.release(between)
                assert "nobody holds one" == meter.as_dict()["longest"]
                # A release that is cancelled goes on: asyncpg shields it.
                monkeypatch.setattr(asyncpg.Connection, "reset", takes_its_time)
                release = asyncio.ensure_future(pool.release(await pool.acquire()))
                await asyncio.sleep(0)
                release.cancel()
                await asyncio.wait([release])
                assert "on its way to somebody, or back" == meter.as_dict()["longest"]

    asyncio.run(main())


def test_a_connection_that_was_closed_is_held_by_nobody(dsn: Dsn) -> None:
    ended: list[str] = []

    @contextlib.contextmanager
    def span(name: str) -> Iterator[None]:
        yield
        ended.append(name)

    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
            with PoolMeter(pool, span) as meter:
                for end in ("close", "terminate") * 5:
                    connection = await pool.acquire()
                    assert ", borrowed at " in meter.as_dict()["longest"]
                    if end == "close":
                        await connection.close()
                    else:
                        connection.terminate()
                    assert "nobody holds one" == meter.as_dict()["longest"]
                await pool.fetchval("SELECT 1")
                assert 11 == ended.count("connection")

    asyncio.run(main())


def test_a_meter_that_was_left_counts_nothing_of_the_next_ones(dsn: Dsn) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
            connection = await pool.acquire()
            with PoolMeter(pool) as first:
                waits = asyncio.ensure_future(pool.acquire())
                await asyncio.sleep(0.01)
            with PoolMeter(pool):
                await pool.release(connection)
                late = await waits
                assert first.longest is None
                await pool.release(late)

    asyncio.run(main())


def test_the_meter_can_be_read_from_another_thread(dsn: Dsn) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=10, max_size=10) as pool:
            with PoolMeter(pool) as meter:
                over = threading.Event()

                def read() -> int:
                    count = 0
                    while not over.is_set():
                        meter.as_dict()
                        count += 1
                    return count

                reader = asyncio.create_task(asyncio.to_thread(read))
                for _ in range(50):
                    await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(20)))
                over.set()
                assert await reader

    asyncio.run(main())


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
                assert (True, None) == (once.done, once.timeout)
                assert 1 == pool.get_idle_size()
                both = await asyncio.gather(pool.acquire(), pool.acquire())
                assert 0 == pool.get_idle_size()
                for connection in both:
                    await pool.release(connection)
                assert "asyncpg.pool" == type(pool).__module__
            with another:
                assert 1 == await pool.fetchval("SELECT 1")
            assert 2 == another.as_dict()["idle"]

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
