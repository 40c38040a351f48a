"""Every cell of a matrix, for every exercise, driven from the notebooks.

Raising, never ending in three ways, wrong in several ways, solved, and solved in another way. The
realistic answers stand in `answers/NAME.py`, as a list of `Case`; among them are those that a
clever learner would try to pass without having understood.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import labkit
from labkit import Exercise, LabError, Verdict
from labkit.exercises import progress
from labkit.server import Dsn
from tests.exercises.answers import Case
from tests.exercises.matrix import (
    NAMES,
    cases,
    check,
    each_exercise,
    solution,
)

Judged = tuple[Verdict, str]  # and what was printed


async def the_solution() -> None:
    """Stands for the exercise's own."""


SOLUTION = Case(the_solution, "pass", "")
ALL = [
    pytest.param(name, case, id=f"{name}-{case.answer.__name__}")
    for name in NAMES
    for case in [SOLUTION, *cases(name)]
]


def judged(name: str, answer: str) -> Judged:
    """Check an answer, in a process of its own."""
    known = {case.answer.__name__: case.answer for case in cases(name)}
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
    ):
        patch.setattr("labkit.exercises.exercise.PATIENCE", 4)
        return check(name, known.get(answer) or solution(name)), said.getvalue()


@pytest.fixture(scope="module")
def verdicts(dsn: Dsn, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Judged]]]:
    """The verdicts on all the answers that these tests ask for; a check waits most of the time.

    So three are under way at once. That keeps the machine as busy as a learner's may be.
    """
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    with ProcessPoolExecutor(3, get_context("spawn")) as workers:
        yield {
            f"{each['name']} {each['case'].answer.__name__}": workers.submit(
                judged, each["name"], each["case"].answer.__name__
            )
            for each in asked
            if "case" in each
        }


@pytest.mark.parametrize(("name", "case"), ALL)
def test_an_answer_is_judged_by_what_it_does(
    name: str, case: Case, verdicts: dict[str, Future[Judged]]
) -> None:
    verdict, said = verdicts[f"{name} {case.answer.__name__}"].result()
    assert case.outcome == verdict.outcome, verdict
    assert re.search(case.says, verdict.message, re.S), verdict
    assert bool(verdict.why) == (case.outcome == "pass")
    assert "PostgreSQL 1" not in said, "the notebook has said which server it is"
    assert name != "pool" or "nan" not in said, "that is no figure"
    if case.outcome == "pass":
        assert progress.read()[name]
        if name != "verify":  # where no picture helps
            assert re.search(r"\. (your|locked|user|connections).*\d", said), "no chart"
    if case.answer.__name__ == "grows_under_load":  # unlike the chart of a warm pool
        assert "two bursts of 20: 2 connections open before them, 8 after" in said


@each_exercise
def test_an_answer_that_raises_is_told_what_it_raised(name: str, dsn: Dsn) -> None:
    async def raises(*args: object) -> None:
        raise RuntimeError("a mistake of my own")

    verdict = Exercise(name).check(raises)
    assert verdict.outcome == "raised", verdict
    assert "RuntimeError: a mistake of my own" in verdict.message


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorter limits; and what an answer still holds has ended before the next test."""
    monkeypatch.setattr("labkit.exercises.exercise.PATIENCE", 0.5)
    monkeypatch.setattr("labkit.exercises.exercise.LIMIT", 1.5)
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive(), thread


@each_exercise
def test_an_answer_that_waits_for_ever_is_broken_off(
    name: str, dsn: Dsn, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The load itself takes up to three seconds.
    monkeypatch.setattr("labkit.exercises.exercise.LIMIT", 20)

    async def waits(*args: object) -> None:
        await asyncio.Event().wait()

    verdict = Exercise(name).check(waits)
    assert verdict.outcome == "not yet", verdict
    assert "had not ended after 0.5 s: it waited at test_answers.py:" in verdict.message


@each_exercise
def test_an_answer_that_never_gives_the_loop_back_is_broken_off(
    name: str, dsn: Dsn, impatient: None
) -> None:
    ended = []

    async def computes(*args: object) -> None:
        try:
            while True:
                pass
        finally:
            ended.append(True)

    verdict = Exercise(name).check(computes)
    assert verdict.outcome == "not yet", verdict
    assert "had not ended after 1.5 s; its loop was held at test_answers.py" in verdict.message
    assert ended, "it still runs, and takes the processor from everything after it"


@each_exercise
def test_an_answer_that_holds_the_loop_in_c_is_left_behind_and_told_where(
    name: str, dsn: Dsn, impatient: None
) -> None:
    async def sleeps(*args: object) -> None:
        time.sleep(4.5)

    verdict = Exercise(name).check(sleeps)
    assert verdict.outcome == "not yet", verdict
    assert "its loop is still held at test_answers.py:" in verdict.message
    assert "in sleeps" in verdict.message
    with pytest.raises(LabError, match=r"not checked: an earlier one still runs, at .* in sleeps"):
        Exercise(name).check(sleeps)


@each_exercise
def test_no_cell_of_the_matrix_is_missing(name: str) -> None:
    outcomes = [case.outcome for case in cases(name)]
    wrong = [case.says for case in cases(name) if case.outcome == "not yet"]
    assert len(outcomes) >= 10
    assert len(wrong) == len(set(wrong)), "each wrong answer has a message of its own"
    assert "raised" in outcomes
    assert "pass" in outcomes, "in another style than the solution"


# What is wrong by the clock alone; all else is judged by what was done.
BY_THE_CLOCK = {
    "stopwatch": "sleeps_between",
    "report": "computes",
    "pool": "never_gives_up",
    "acquire": "behind_a_lock",
    "transform": "asks_for_all_weeks_at_once",
    "gate": "tries_twice",
    "verify": "counts_what_is_slow",
    "transaction": "one_at_a_time",
    "endpoint": "calls_the_old_one",
}


@each_exercise
def test_on_a_machine_that_was_late_no_answer_is_accused_by_the_clock(
    name: str, dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = property(lambda run: 2_000.0, lambda run, value: None)
    monkeypatch.setattr(labkit.Run, "noise_max_ms", late)
    [answer] = [case.answer for case in cases(name) if case.answer.__name__ == BY_THE_CLOCK[name]]
    verdict = Exercise(name).check(answer)
    assert "inconclusive" == verdict.outcome, verdict
    assert "this machine is busy: by itself it was up to 2000 ms late" in verdict.message


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
