"""The web service of notebook 10: each fault is named, each is repaired by itself."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from web_service import alerts, client, process, repairs, testing
from web_service.metrics import Inside
from web_service.settings import PARTS, Settings, from_environment

from labkit.errors import LabError
from labkit.probe import Probe
from labkit.probe.pool import PoolMeter
from labkit.server import Dsn
from tests.notebooks.served import ask, sessions
from tests.server.test_embedded import until
from tests.stalls import unless_busy

LOOPS = ["asyncio"] + ["uvloop"] * (sys.platform != "win32")

# The line of each fault, and the request by which it is met.
FAULTS = {
    "credit": ("credit.py", "cursor.execute(CREDIT, (customer,))"),
    "shipping": ("shipping.py", "async with httpx.AsyncClient() as client:"),
    "sign_in": ("accounts.py", "return hashlib.scrypt("),
    "export": ("type_adapter.py", ""),  # pydantic's own
    "payments": ("collector.py", "connection.recv(4)"),
}
# The export's lines are in C code that lets a look in only where it begins and ends: at times a
# look comes too late for it, and says so.
ASKED = [*FAULTS, *FAULTS, *["export"] * 6]
TASKS = {
    "credit": "GET /customers/{customer}/credit",
    "sign_in": "POST /sessions",
    "export": "GET /exports/orders",
    "payments": "POST /payments",
}


def stalls(service: process.Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.get("/probe")["summary"]["stalls"]
    return found


def counted(service: process.Service) -> Counter[tuple[str, int]]:
    """How many stalls each line has had so far."""
    found = Counter[tuple[str, int]]()
    for row in stalls(service):  # a line has one for each cause
        found[row["file"] or "", row["line"]] += row["count"]
    return found


def test_the_counter_of_busy_seconds_grows_by_what_the_loop_was_busy(dsn: Dsn) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
            with Probe() as probe, PoolMeter(pool) as meter:
                inside = Inside(probe, meter)

                def busy() -> float:
                    named = {metric.name: metric for metric in inside.collect()}
                    return float(named["asyncio_loop_busy_seconds"].samples[0].value)

                probe._timer.entered -= 3_600  # as if it had counted for an hour
                probe._timer.waited += 1_801
                before = busy()
                for _ in range(20):
                    await asyncio.sleep(0.05)
                    assert 0 <= busy() - before < 0.5

    asyncio.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_each_fault_is_named_by_its_line_and_its_request(
    loop: str, dsn: Dsn, nothing_is_left: None
) -> None:
    with process.run(dsn, "--loop", loop, watched=True) as service:
        ask(service, *ASKED)
        found = stalls(service)
    for part, (file, source) in FAULTS.items():
        mine = [s for s in found if (s["file"] or "").endswith(file) and source in s["source"]]
        assert mine, (part, found)
        # Where a look came late, or a collection ran, the probe does not tell whose task it was.
        named = {s["task"] for s in mine if s["task"]}
        assert part not in TASKS or named == {TASKS[part]}, (part, found)


@pytest.mark.parametrize("loop", LOOPS)
def test_repaired_none_of_them_holds_the_loop(loop: str, dsn: Dsn, nothing_is_left: None) -> None:
    def once() -> list[tuple[str, int]]:
        with process.run(dsn, "--loop", loop, repaired=PARTS, watched=True) as service:
            before = counted(service)  # of the start
            ask(service, *ASKED)
            found = counted(service) - before
        files = {file for file, _ in FAULTS.values()}
        return [(file, line) for file, line in found if Path(file).name in files]

    found = unless_busy(once, lambda found: not found, quiet=True)
    assert not found


def answers(dsn: Dsn, repaired: list[str]) -> list[Any]:
    with process.run(dsn, repaired=repaired) as service:
        return [json.loads(text) for text in ask(service, *client.REQUESTS)]


@pytest.fixture(scope="module")
def answers_of_the_sick_service(dsn: Dsn) -> list[Any]:
    return answers(dsn, [])


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_repaired_by_itself_and_answers_the_same(
    part: str, dsn: Dsn, answers_of_the_sick_service: list[Any]
) -> None:
    assert answers_of_the_sick_service == answers(dsn, [part])
    assert "\n+" in repairs.diff(part)


def test_without_an_edit_the_command_names_them_and_sums_up_at_the_end(dsn: Dsn) -> None:
    uvicorn = ["-m", "uvicorn", "web_service.app:create_app", "--factory"]
    command = [sys.executable, "-m", "labkit.probe", "--threshold-ms", "20", *uvicorn]
    with process.run(dsn, command=command) as service:
        ask(service, *ASKED)
    said = "\n".join(service.log)
    for file, _ in FAULTS.values():
        assert file in said
    assert f"process {service.process.pid}:" in said
    assert "lag_p99_ms" in said.splitlines()[-1], "the loop's figures come last"


def test_alerts_fire_on_the_sick_service_and_not_on_the_sound_one(dsn: Dsn) -> None:
    def seen(repaired: tuple[str, ...]) -> dict[str, float]:
        async def crowd(service: process.Service) -> None:
            async with aiohttp.ClientSession(service.url) as session:
                names = [*FAULTS, *["order"] * 20] * 2
                await asyncio.gather(*(client.ask(session, name) for name in names))

        with process.run(dsn, repaired=repaired, watched=True) as service:
            first = service.get("/metrics")
            # From the start: a counter's first value is no increase to Prometheus.
            assert "\nasyncio_loop_stalled_seconds_total 0" in first
            asyncio.run(crowd(service))
            return alerts.figures(first, service.get("/metrics"))

    sick = seen(())
    limits = alerts.thresholds(dict.fromkeys(alerts.QUERIES, 0.0))
    assert list(alerts.QUERIES) == alerts.fired(sick, limits)
    # Not the share held by stalls: a sound service is done so soon that first uses are much of it.
    lag = "loop lag, p99 (s)"
    assert seen(PARTS)[lag] < sick[lag] / 3


def test_an_unhealthy_run_is_told_and_gives_no_threshold_out_of_reach() -> None:
    slow = dict.fromkeys(alerts.QUERIES, 0.09) | {"acquire wait, p99 (s)": 5.0}
    assert alerts.unhealthy(slow) == ["acquire wait, p99 (s) 5"]
    assert max(alerts.thresholds(slow).values()) == 0.3


def test_two_workers_have_a_probe_and_a_pool_each(dsn: Dsn, nothing_is_left: None) -> None:
    async def both(service: process.Service) -> dict[int, Any]:
        found: dict[int, Any] = {}
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession(service.url, connector=connector) as session,
        ):
            await client.ask(session, "credit")
            while len(found) < 2:
                asked = await asyncio.gather(*(session.get("/probe") for _ in range(20)))
                found |= {answer["pid"]: answer for answer in [await a.json() for a in asked]}
        return found

    with process.run(dsn, "--workers", "2", watched=True) as service:
        found = asyncio.run(both(service))
        until(lambda: sessions(dsn) == 10)  # psycopg2 does not wait for its own to end
    stalled = [pid for pid, seen in found.items() if "credit.py" in json.dumps(seen["summary"])]
    assert 1 == len(stalled)
    assert service.process.pid not in found


def test_the_tests_of_the_endpoints_fail_on_the_sick_service_alone(dsn: Dsn) -> None:
    def by_probe(found: testing.Outcomes) -> set[str]:
        return {key[2] for key, it in found.items() if it == "FAILED" and "probe" in key[1]}

    # A fixture accuses nobody of time for which the machine kept the process from running.
    found = unless_busy(
        lambda: testing.run_on({"sick": (), "sound": PARTS}, dsn),
        lambda found: by_probe(found) == {*PARTS},
    )
    assert {*PARTS} == by_probe(found)
    others = {
        key for key, outcome in found.items() if outcome == "FAILED" and "probe" not in key[1]
    }
    assert {("sick", "test_by_blockbuster", e) for e in ("payments", "payments, quick")} == others


def test_a_service_that_does_not_answer_is_no_praise_of_a_detector() -> None:
    with pytest.raises(LabError, match=r"does not answer .credit.: .*(Error|refused)"):
        testing.run_on({"sick": ()}, "postgresql://lab:lab@127.0.0.1:1/lab")


def test_settings_come_from_the_environment_and_hide_the_dsn() -> None:
    given = {
        "WEB_SERVICE_DSN": "postgresql://lab:secret@host/lab",
        "WEB_SERVICE_REPAIRED": "credit",
    }
    settings = from_environment(given)
    assert Settings(given["WEB_SERVICE_DSN"], ("credit",)) == settings
    assert "secret" not in repr(settings)
