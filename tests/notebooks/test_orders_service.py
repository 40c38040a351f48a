"""The orders service of notebook 06 and its repaired twin, and the notebook's instruments."""

from __future__ import annotations

import ast
import asyncio
import difflib
import inspect
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import asyncpg
import pytest
from instruments import witness

import labkit as lab
from labkit.exercises import notebooks
from labkit.probe.pool import PoolMeter
from labkit.server import Dsn

FAULTY, REPAIRED = "orders_service", "orders_service_repaired"
MODULES = ("db", "lookups", "audit", "history", "pricing", "fees", "reminders")
each_service = pytest.mark.parametrize("package", [FAULTY, REPAIRED])


def module(package: str, name: str) -> ModuleType:
    return import_module(f"{package}.{name}")


def compose(package: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: module(package, name) for name in MODULES})


async def ask_everything(package: str, dsn: str) -> dict[str, Any]:
    service = compose(package)
    async with service.db.open_database(dsn) as db, service.pricing.open_pricing(db) as pricing:
        return {
            "lookups": [await service.lookups.amount(db, order) for order in (1, 7, 200_000)],
            "audit": [await service.audit.audit(db, customer) for customer in (0, 42)],
            "history": [await service.history.history(db, customer) for customer in (0, 42, 5000)],
            "pricing": [await pricing.price(order) for order in range(1, 100)],
            "fees": await service.fees.fees(db),
            "reminders": await service.reminders.Reminders(db).send([7, 1, 8]),
        }


def test_both_services_answer_the_same(dsn: Dsn) -> None:
    faulty, repaired = (asyncio.run(ask_everything(p, dsn)) for p in (FAULTY, REPAIRED))
    assert faulty == repaired
    assert 1000 == len(repaired["fees"])
    assert 50_000 == sum(statement[1] for statement in repaired["fees"])
    assert all(isinstance(statement, tuple) for statement in repaired["fees"])


def public(of: ModuleType) -> set[str]:
    own = (name for name, value in vars(of).items() if inspect.getmodule(value) is of)
    return {name for name in own if not name.startswith("_")}


def test_both_have_the_same_modules() -> None:
    files = [{path.name for path in (notebooks() / p).glob("*.py")} for p in (FAULTY, REPAIRED)]
    assert files[0] == files[1] == {f"{name}.py" for name in (*MODULES, "__init__")}


@pytest.mark.parametrize("name", MODULES)
def test_what_others_call_has_the_same_name_and_arguments_in_both(name: str) -> None:
    faulty, repaired = module(FAULTY, name), module(REPAIRED, name)
    assert public(repaired) <= public(faulty)
    for shared in public(repaired):
        old, new = (inspect.signature(getattr(m, shared)) for m in (faulty, repaired))
        if shared != "Pricing":  # it is made by open_pricing
            assert list(old.parameters) == list(new.parameters), shared


def test_five_modules_and_the_pool_differ_and_the_lookups_do_not() -> None:
    sources = {n: [inspect.getsource(module(p, n)) for p in (FAULTY, REPAIRED)] for n in MODULES}
    assert {"lookups"} == {name for name, (old, new) in sources.items() if old == new}
    for name, (old, new) in sources.items():
        diff = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=1, lineterm=""))
        assert len(diff) < 75, f"the diff of {name} is no longer one that a person reads"


def imported(package: str) -> set[str]:
    found: set[str] = set()
    for path in (notebooks() / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module))
    return found


def test_neither_knows_the_lab_and_only_one_knows_psycopg2() -> None:
    assert not {name for p in (FAULTY, REPAIRED) for name in imported(p) if "labkit" in name}
    assert "psycopg2" in imported(FAULTY)
    assert "psycopg2" not in imported(REPAIRED)


async def two_hundred_prices(package: str, dsn: str) -> list[Any]:
    service = compose(package)
    async with service.db.open_database(dsn) as db, service.pricing.open_pricing(db) as pricing:
        calls = (pricing.price(order) for order in range(1, 201))
        return await asyncio.gather(*calls, return_exceptions=True)


def test_the_shared_connection_refuses_who_comes_second(dsn: Dsn) -> None:
    answers = asyncio.run(two_hundred_prices(FAULTY, dsn))
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(errors) == 199
    assert {"cannot perform operation: another operation is in progress"} == set(map(str, errors))


def test_the_repaired_pricing_answers_everybody(dsn: Dsn) -> None:
    answers = asyncio.run(two_hundred_prices(REPAIRED, dsn))
    assert [] == [answer for answer in answers if isinstance(answer, Exception)]


def measured(package: str, dsn: Dsn, name: str, rate: float, burst: int = 1) -> lab.Run:
    """A second of one endpoint beside the lookups, with the notebook's stopwatches."""
    service = compose(package)

    async def scenario(load: lab.Load) -> None:
        async with service.db.open_database(dsn) as db:
            request = {
                "audit": lambda: service.audit.audit(db, 42),
                "fees": lambda: service.fees.fees(db),
                "history": lambda: service.history.history(db, 42),
                "reminders": lambda: service.reminders.Reminders(db).send(range(1, 101)),
            }[name]
            load.offer("lookup", lambda: service.lookups.amount(db, 7), rate=50)
            load.offer(name, request, rate=rate, burst=burst)
            load.gauge("idle", db.pool.get_idle_size)
            with PoolMeter(db.pool, load.span), witness.watch_connects(load):
                await load.run(seconds=1)

    return lab.measure(scenario)


@pytest.mark.parametrize(("name", "cause"), [("audit", "blocked"), ("fees", "computing")])
def test_two_modules_hold_the_loop_at_a_line_of_their_own(name: str, cause: str, dsn: Dsn) -> None:
    before, after = (measured(package, dsn, name, rate=2) for package in (FAULTY, REPAIRED))
    held, left = (
        [stall for stall in run.stalls if str(stall.frame).startswith(f"{name}.py")]
        for run in (before, after)
    )
    assert {cause} == {stall.cause for stall in held}
    assert [] == left
    assert 0 == before.failed() == after.failed()


def connects(run: lab.Run) -> int:
    return int((run.spans.span == "connect").sum())


def test_the_history_connects_each_time_and_repaired_never(dsn: Dsn) -> None:
    before, after = (measured(package, dsn, "history", rate=20) for package in (FAULTY, REPAIRED))
    assert 20 == connects(before)
    assert 0 == connects(after)
    assert 0 == before.failed() == after.failed()


def test_the_reminders_take_the_whole_pool_and_repaired_half_of_it(dsn: Dsn) -> None:
    before, after = (measured(package, dsn, "reminders", rate=1) for package in (FAULTY, REPAIRED))
    assert 0 == before.gauges.idle.min()
    # A lookup or two may hold one as well.
    assert after.gauges.idle.min() > 0
    assert 0 == before.failed() == after.failed()


def test_the_repaired_service_bounds_a_stuck_query_and_the_wait_for_a_connection(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    db_module: Any = module(REPAIRED, "db")
    monkeypatch.setattr(db_module, "PATIENCE", 0.2)

    async def stuck() -> None:
        async with db_module.open_database(dsn) as db:
            async with db.connection() as connection:
                with pytest.raises(TimeoutError):
                    await connection.execute("SELECT pg_sleep(10)")
            borrowed = [await db.pool.acquire() for _ in range(db_module.POOL_SIZE)]
            with pytest.raises(TimeoutError):
                async with db.connection():
                    pass
            for connection in borrowed:
                await db.pool.release(connection)

    asyncio.run(stuck())


STATES = """
    SELECT coalesce(state, 'starting'), count(*)::int FROM pg_stat_activity
    WHERE application_name = $1 GROUP BY 1"""


async def left_on_the_server(dsn: str, name: str) -> int:
    connection = await asyncpg.connect(dsn)
    left = 0
    try:
        for _ in range(100):  # a backend takes a moment to go
            left = sum(number for _, number in await connection.fetch(STATES, name))
            if not left:
                break
            await asyncio.sleep(0.05)
        return left
    finally:
        await connection.close()


@each_service
def test_the_witness_sees_the_service_by_its_name_and_nothing_is_left(
    package: str, dsn: Dsn
) -> None:
    name = f"test of {package}"
    service, ours = compose(package), witness.named(dsn, name)
    seen: witness.Witnessed = []

    async def scenario(load: lab.Load) -> None:
        nonlocal seen
        async with service.db.open_database(ours) as db, service.pricing.open_pricing(db):
            load.offer("lookup", lambda: service.lookups.amount(db, 7), rate=50)
            load.offer("audit", lambda: service.audit.audit(db, 42), rate=3)
            with witness.witness(dsn, STATES, name, load) as seen:
                await load.run(seconds=1)

    lab.measure(scenario)
    table = witness.by_state(seen)
    # The pool, psycopg2's, and one of psycopg2's that has not ended yet.
    assert 10 <= table.sum(axis=1).max() <= 12
    assert 1 <= table.active.max()
    assert len(table) >= 3
    assert 0 == asyncio.run(left_on_the_server(dsn, name))


def test_the_witness_hides_no_error_of_its_own(dsn: Dsn) -> None:
    async def scenario(load: lab.Load) -> None:
        load.offer("nothing", lambda: asyncio.sleep(0), rate=10)
        with witness.witness(dsn, "SELECT nonsense", "nobody", load):
            await load.run(seconds=0.5)

    with pytest.raises(lab.LabError, match="nonsense"):
        lab.measure(scenario)


def test_a_named_url_keeps_its_password_and_hides_it() -> None:
    url = Dsn("postgresql://lab:secret@127.0.0.1/lab")
    named = witness.named(url, "orders service 7")
    assert named[:].endswith("lab:secret@127.0.0.1/lab?application_name=orders%20service%207")
    assert "secret" not in f"{named}"
    assert "?sslmode=disable&application_name=x" in witness.named(
        Dsn(url[:] + "?sslmode=disable"), "x"
    )


def test_a_chart_of_steps_says_every_figure_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    witness.chart_steps(
        ["none", "1 audit"], {"errors (per second)": (1, [12.34, 0.0])}, title="It helped"
    )
    said = capsys.readouterr().out
    assert "It helped. At none, 1 audit. errors (per second): 12, 0." in said
