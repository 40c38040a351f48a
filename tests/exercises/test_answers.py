"""Every cell of a matrix, for every exercise, driven from the notebooks.

Raising, never ending in three ways, wrong in several ways, solved, and solved in another way. The
realistic answers stand in `answers/NAME.py`, as a list of `Case`; among them are those that a
clever learner would try to pass without having understood.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import pytest

import labkit
from labkit import Exercise, LabError, Verdict
from labkit.exercises import exercise, notebooks, progress
from labkit.server import Dsn, embedded
from labkit.workbook.kernel import execute
from tests.exercises.answers import Case
from tests.exercises.answers.report import MONTHS
from tests.exercises.matrix import (
    NAMES,
    cases,
    check,
    each_exercise,
    solution,
)
from tests.home import own_home

Judged = tuple[Verdict, str, bool]  # what was printed, whether the exercise counts as solved
GOES_ON = threading.Lock()  # while a verdict is made: a new one, held, for each


async def the_solution() -> None:
    """Stands for the exercise's own."""


async def makes_a_mistake(*args: object) -> None:
    raise RuntimeError("a mistake of my own")


async def returns_a_coroutine(*args: object) -> object:
    return asyncio.sleep(0)


async def returns_a_future(*args: object) -> object:
    return asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)


def is_not_async(*args: object) -> int:
    return 20


async def waits_for_ever(*args: object) -> None:
    await asyncio.Event().wait()


async def never_gives_the_loop_back(*args: object) -> None:
    try:
        while True:
            pass
    finally:
        print("It was broken off.")


async def waits_in_c(*args: object) -> None:
    GOES_ON.acquire(timeout=exercise.LIMIT + 20)  # for longer than its check tries to end it


SOLUTION = Case(the_solution, "pass", "")
# An answer to any exercise.
ANYWHERE = [
    Case(makes_a_mistake, "raised", "RuntimeError: a mistake of my own"),
    Case(
        is_not_async,
        "not yet",
        r"a call of your answer returned 20, which cannot be awaited\. Expected a coroutine",
    ),
    Case(
        returns_a_coroutine,
        "not yet",
        "a call of your answer returned a coroutine that nobody awaited: write `return await …`",
    ),
    Case(returns_a_future, "not yet", "your answer returned a Future that nobody awaited: write"),
    Case(
        waits_for_ever,
        "not yet",
        r"had not ended after 0.5 s: it waited at test_answers\.py:",
        by_the_clock=True,
    ),
    Case(
        never_gives_the_loop_back,
        "not yet",
        r"ended after \d+ s; its loop was held at test_answers\.py:",
    ),
    Case(waits_in_c, "not yet", r"its loop is still held at test_answers\.py:\d+ in waits_in_c"),
]
# s; a busy machine may need so long until it calls the answer: then the next is tried.
LIMITS = {"never_gives_the_loop_back": (2, 6, 20), "waits_in_c": (2, 6, 20)}

ALL = [(name, case) for name in NAMES for case in [*ANYWHERE, SOLUTION, *cases(name)]]
# What is wrong by the clock alone; all else is judged by what was done.
BY_THE_CLOCK = [(name, next(case for case in cases(name) if case.by_the_clock)) for name in NAMES]


def with_ids(them: list[tuple[str, Case]]) -> pytest.MarkDecorator:
    ids = [f"{name}-{case.answer.__name__}" for name, case in them]
    return pytest.mark.parametrize(("name", "case"), them, ids=ids)


def judged(name: str, answer: str, machine_is_late: bool) -> Judged:
    """Check an answer, in a process of its own."""
    known = {case.answer.__name__: case for case in [*cases(name), *ANYWHERE]}
    case = known.get(answer) or Case(solution(name), "pass", "")
    said, before = io.StringIO(), set(threading.enumerate())
    goes_on = threading.Lock()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), goes_on:
        patch.setattr(f"{__name__}.GOES_ON", goes_on)
        patch.setattr(
            exercise, "PATIENCE", 0.5 if case in ANYWHERE else 4 if name == "acquire" else 8
        )
        if machine_is_late:
            late = property(lambda run: 20_000.0, lambda run, value: None)
            patch.setattr(labkit.Run, "noise_max_ms", late)
        for limit in LIMITS.get(answer, (30,)):
            patch.setattr(exercise, "LIMIT", limit)
            # If times decide, another try on a busy machine says no more than the first.
            verdict = check(name, case.answer, tries=1 if case.by_the_clock else 3)
            if "held at test_answers.py" in verdict.message:
                break
        if answer == "waits_in_c":
            with pytest.raises(LabError) as refusal:
                Exercise(name).check(case.answer)
            print(refusal.value)
    if answer == "waits_in_c":
        for thread in set(threading.enumerate()) - before:
            thread.join(20)
    return verdict, said.getvalue(), bool(progress.read().get(name))


def at_home(home: Path) -> None:
    os.environ["LABKIT_HOME"] = str(home)


@dataclass(frozen=True)
class Checks:
    """The checks of all the answers that these tests ask for, under way."""

    workers: ProcessPoolExecutor
    verdicts: dict[str, Future[Judged]]

    def begin(self, test: str, name: str, case: Case) -> Future[Judged]:
        """Check an answer in one of the processes."""
        return self.workers.submit(judged, name, case.answer.__name__, "late_machine" in test)


@pytest.fixture(scope="session")
def checks(request: pytest.FixtureRequest) -> Iterator[Checks]:
    """The verdicts on all the answers that these tests ask for; a check waits most of the time.

    So four are under way at once, on a server of their own, while other tests measure. That keeps
    the machine as busy as a learner's may be. Each exercise has its turn: two checks of one would
    wait for the same table.
    """
    turns: Counter[str] = Counter()
    asked: list[tuple[int, str, Any]] = []
    items: list[Any] = request.session.items
    for item in items:
        if "verdict_and_output" in item.fixturenames:
            params = item.callspec.params
            turns[params["name"]] += 1
            asked.append((turns[params["name"]], item.name, params))
    with own_home() as home:
        workers = ProcessPoolExecutor(4, get_context("spawn"), at_home, (home,))
        checks = Checks(workers, {})
        try:
            for _, test, each in sorted(asked, key=lambda it: it[0]):
                checks.verdicts[test] = checks.begin(test, **each)
            yield checks
        finally:
            try:
                workers.shutdown(cancel_futures=True)  # if the tests were interrupted
            finally:
                embedded.stop(home / "postgresql")


@pytest.fixture
def verdict_and_output(
    checks: Checks, request: pytest.FixtureRequest, name: str, case: Case
) -> Judged:
    """What came of an answer.

    A wrong one is broken off for its time before it is refused for its fault, where five processes
    want two processors: it is checked again, when fewer are under way. No right one is.
    """
    test = request.node.name
    first = verdict, *_ = checks.verdicts[test].result()
    if case.outcome != "pass" and not re.search(case.says, verdict.message, re.S):
        return checks.begin(test, name, case).result()
    return first


@with_ids(ALL)
def test_an_answer_is_judged_by_what_it_does(
    name: str, case: Case, verdict_and_output: Judged
) -> None:
    verdict, said, solved = verdict_and_output
    if case.outcome == "pass" and "But this machine is busy" in verdict.message:
        assert "inconclusive" == verdict.outcome
        pytest.skip("three times, this machine was too busy for a verdict")
    if not (case.by_the_clock and verdict.outcome == "inconclusive"):
        assert case.outcome == verdict.outcome, verdict
    assert re.search(case.says, verdict.message, re.S), verdict
    assert bool(verdict.why) == (case.outcome == "pass")
    assert "PostgreSQL 1" not in said, "the notebook has said which server it is"
    assert name != "pool" or "nan" not in said, "that is no figure"
    if case.outcome == "pass":
        assert solved
        if name != "verify":  # where no picture helps
            assert re.search(r"\. (your|locked|user|connections).*\d", said), "no chart"
    if case.answer.__name__ == "grows_under_load":  # unlike the chart of a warm pool
        assert "two bursts of 20: 2 connections open before them, 8 after" in said
    if case.answer is never_gives_the_loop_back:
        assert "It was broken off." in said, "it takes the processor from everything after it"
    if case.answer is waits_in_c:
        again = r"not checked: an earlier answer or scenario still runs, at .* in waits_in_c"
        assert re.search(again, said), said


@with_ids(BY_THE_CLOCK)
def test_on_a_late_machine_no_answer_is_accused_by_the_clock(
    name: str, case: Case, verdict_and_output: Judged
) -> None:
    verdict, *_ = verdict_and_output
    assert "inconclusive" == verdict.outcome, verdict
    assert re.search(case.says, verdict.message, re.S), verdict
    assert "But this machine is busy: by itself it was up to 20000 ms late" in verdict.message


@each_exercise
def test_no_cell_of_the_matrix_is_missing(name: str) -> None:
    outcomes = [case.outcome for case in cases(name)]
    wrong = [case.says for case in cases(name) if case.outcome == "not yet"]
    assert len(outcomes) >= 10
    assert len(wrong) == len(set(wrong)), "each wrong answer has a message of its own"
    assert "raised" in outcomes
    assert "pass" in outcomes, "in another style than the solution"


PRINTS = """
import labkit as lab
async def monthly_orders(pool, customer):
    print(customer, flush=True)
    return {row["month"]: row["count"] for row in await pool.fetch(MONTHS, customer)}
async def sleepy(pool, customer):
    __import__("time").sleep(0.001)
    return await monthly_orders(pool, customer)
print(*(lab.Exercise("report").check(it).outcome for it in (monthly_orders, sleepy)), sep=", ")
"""


def test_what_jupyter_waits_for_when_it_prints_is_not_the_reports_doing(dsn: Dsn) -> None:
    ask: Any = nbformat.v4  # which has no types
    notebook = ask.new_notebook(cells=[ask.new_code_cell(f"MONTHS = {MONTHS!r}{PRINTS}")])
    execute(notebook, notebooks())
    said = [output.text for output in notebook.cells[0].outputs if "text" in output]
    assert re.search(r"^(pass|inconclusive), not yet$", "".join(said), re.MULTILINE), said


def test_a_late_look_at_the_bank_is_not_the_answers_fault(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exercises.instruments.shop import Shop

    look = Shop.look

    async def late(shop: Shop) -> None:
        await asyncio.sleep(0.25)  # as a busy machine does
        await look(shop)

    monkeypatch.setattr(Shop, "look", late)
    assert "pass" == check("transaction", solution("transaction")).outcome
