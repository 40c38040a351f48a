"""The machinery of exercises: stubs, hints, solutions, the stop button, and a busy machine."""

from __future__ import annotations

import _thread
import asyncio
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from exercises import stopwatch
from exercises.instruments.cost import ENOUGH, Cost, measured

import labkit
from labkit import Exercise, LabError
from labkit.exercises import (
    CATALOGUE,
    NotYet,
    by_the_clock,
    exercise,
    notebooks,
)
from labkit.server import Dsn
from tests.exercises.matrix import (
    NAMES,
    NOTEBOOK,
    cells,
    each_exercise,
    starter,
)


@each_exercise
def test_the_notebooks_own_starter_cell_is_not_an_attempt(name: str) -> None:
    exercise, function = starter(name)
    assert [f".check({function.__name__})"] == [
        cell[cell.index(".") :] for cell in cells(NOTEBOOK[name]) if ".check(" in cell
    ]
    verdict = exercise.check(function)
    assert ("not attempted", "") == (verdict.outcome, verdict.why)
    assert "Replace the stub (`...`) by your answer" in verdict.message


async def says_what_it_will_do(dsn):  # type: ignore[no-untyped-def]
    """The report."""


async def says_so_and_has_an_ellipsis(dsn):  # type: ignore[no-untyped-def]
    """The report."""
    ...  # noqa: PIE790


async def passes(dsn):  # type: ignore[no-untyped-def]
    pass


async def is_not_implemented(dsn):  # type: ignore[no-untyped-def]
    """The report."""
    raise NotImplementedError


async def is_not_implemented_and_says_so(dsn):  # type: ignore[no-untyped-def]
    raise NotImplementedError("to do: the report")


async def returns_nothing(dsn):  # type: ignore[no-untyped-def]
    return None


def is_not_even_async(dsn):  # type: ignore[no-untyped-def]
    """The report."""


async def has_begun(dsn):  # type: ignore[no-untyped-def]
    wanted = dsn  # noqa: F841


async def returns_a_constant(dsn):  # type: ignore[no-untyped-def]
    return {}


async def returns_what_it_got(dsn):  # type: ignore[no-untyped-def]
    return dsn


async def returns_a_number(dsn):  # type: ignore[no-untyped-def]
    return 20


async def returns_a_global(dsn):  # type: ignore[no-untyped-def]
    return NAMES


async def raises_something(dsn):  # type: ignore[no-untyped-def]
    raise RuntimeError


@pytest.mark.parametrize(
    "stub",
    [
        says_what_it_will_do,
        says_so_and_has_an_ellipsis,
        passes,
        is_not_implemented,
        is_not_implemented_and_says_so,
        returns_nothing,
        is_not_even_async,
        None,
        ...,
    ],
)
def test_a_stub_is_not_an_attempt_however_it_is_written(stub: Any) -> None:
    assert exercise._is_a_stub(stub)


@pytest.mark.parametrize(
    "attempt",
    [
        has_begun,
        returns_a_constant,
        returns_what_it_got,
        returns_a_number,
        returns_a_global,
        raises_something,
        partial(passes, 1),
        print,
    ],
)
def test_what_does_anything_is_an_attempt(attempt: Any) -> None:
    assert not exercise._is_a_stub(attempt)


def test_each_notebook_from_00_to_07_and_10_has_exercises_and_each_has_one_notebook() -> None:
    assert [*(f"0{n}" for n in range(8)), "10"] == [notebook[:2] for notebook in CATALOGUE]
    assert len(NAMES) == len(set(NAMES)) == sum(map(len, CATALOGUE.values()))
    found = {
        notebook: re.findall(r'lab\.Exercise\("(\w+)"\)', "\n".join(cells(notebook)))
        for notebook in CATALOGUE
    }
    assert CATALOGUE == found
    assert sorted(path.stem for path in (notebooks() / "exercises").glob("*.py")) == sorted(NAMES)


@each_exercise
def test_hints_lead_on_and_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = Exercise(name)
    shown = []
    for _ in range(4):
        exercise.hint()
        shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 4
    assert "last hint" in shown[3]
    exercise.solution()
    said = capsys.readouterr().out
    assert "def " in said
    assert "Why it works" in said
    assert "\nWhen not to" in said


@each_exercise
def test_why_it_works_is_read_in_half_a_minute(name: str) -> None:
    why = Exercise(name)._material.WHY
    assert len(why.split()) <= 75
    assert len(why.splitlines()) >= 3, "no block of text"


def test_the_stop_button_in_a_check_is_a_keyboard_interrupt(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    async def waits(*args: object) -> None:
        started.set()
        await asyncio.Event().wait()

    def stop() -> None:
        started.wait(30)
        _thread.interrupt_main()

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt, match="was stopped"):
        Exercise("report").check(waits)


def test_an_unknown_exercise_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"no exercise 'nope'\. Expected one of: .*report"):
        Exercise("nope")


def test_what_is_no_function_is_told_so() -> None:
    verdict = labkit.Exercise("report").check({})  # type: ignore[arg-type]
    assert "not yet" == verdict.outcome
    assert "Expected a coroutine function (`async def`), and got {}" in verdict.message


def test_what_cannot_be_compared_is_told_so_and_a_lost_server_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(load: labkit.Load) -> None:
        load.offer("nothing", lambda: asyncio.sleep(0), rate=10)
        await load.run(seconds=0.1)

    def unlike(answer: object) -> None:
        labkit.measure(scenario)
        raise ValueError("the truth of an array is ambiguous")

    def lost(answer: object) -> None:
        raise ConnectionError("the server went away")

    verify = Exercise("verify")
    monkeypatch.setattr(verify._material, "check", unlike)
    verdict = verify.check(raises_something)
    assert "not yet" == verdict.outcome
    said = r"raised ValueError: the truth .* ambiguous \(at line \d+, unlike\)"
    assert re.search(said, verdict.message)
    monkeypatch.setattr(verify._material, "check", lost)
    with pytest.raises(ConnectionError, match="went away"):
        verify.check(raises_something)


def test_what_the_machine_may_have_done_is_inconclusive() -> None:
    async def scenario(load: labkit.Load) -> None:
        load.offer("nothing", lambda: asyncio.sleep(0), rate=10)
        await load.run(seconds=0.1)

    run = replace(labkit.measure(scenario), machine=labkit.Machine(late_ms=[100.0]))
    assert "not yet" == by_the_clock(run, 101, "It came late.").outcome
    starved = replace(run, machine=labkit.Machine(idle=0.0))
    assert "not yet" == by_the_clock(starved, 101, "It came late.", over=4.1).outcome
    assert "queue for a processor." in str(by_the_clock(starved, 101, "It came late.", over=3.9))
    late = by_the_clock(run, 99, "It came late.")
    assert "inconclusive" == late.outcome
    assert re.match(r"It came late\. But .* up to 100 ms late\. Close other programs", str(late))


@pytest.mark.parametrize(("idle", "outcome"), [(0.0, "inconclusive"), (0.5, "not yet")])
def test_a_stopwatch_that_had_to_queue_for_a_processor_is_not_accused(
    idle: float, outcome: str
) -> None:
    async def scenario(load: labkit.Load) -> None:
        load.offer("nothing", lambda: asyncio.sleep(0), rate=10)
        await load.run(seconds=0.1)

    run = replace(labkit.measure(scenario), machine=labkit.Machine(idle=idle))
    starts = [k / 100 + 0.3 * (k >= 170) for k in range(300)]
    with pytest.raises(NotYet, match="in the last second") as seen:
        stopwatch._judge(run, [(start, start + 0.02) for start in starts], 20, 300, [], 0)
    assert outcome == seen.value.outcome


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's clock cannot be read")
def test_what_labkits_threads_need_is_not_the_answers() -> None:
    """Its probes look about more often, the busier the machine is."""

    def burn(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    async def waits_beside_one_of_labkits() -> None:
        labkits = threading.Thread(target=burn, args=(0.05,), name="labkit: a probe")
        labkits.start()
        with ThreadPoolExecutor(1) as executor:
            loop = asyncio.get_running_loop()
            while labkits.is_alive():
                await loop.run_in_executor(executor, burn, 0.0)
                await asyncio.sleep(0.005)

    async def works_in_a_thread() -> None:
        await asyncio.to_thread(burn, 0.05)

    costs = [Cost(), Cost()]
    asyncio.run(measured(waits_beside_one_of_labkits, costs[0]))
    asyncio.run(measured(works_in_a_thread, costs[1]))
    assert costs[0].threads < ENOUGH
    assert costs[1].threads > 2 * ENOUGH
    assert any("in burn" in line for line, _ in costs[1].seen)
