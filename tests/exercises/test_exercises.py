"""Every cell of a matrix, for every exercise, driven from the notebooks.

Untouched, raising, never ending in three ways, wrong in several ways, solved, and solved in another
way. The notebook gives the starter cell and the imports; the realistic answers stand in
`answers/NAME.py`, as a list of `Case`.
"""

from __future__ import annotations

import _thread
import ast
import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

import nbformat
import pytest

import labkit
from labkit import Exercise, LabError, Verdict
from labkit.exercises import Inconclusive, catalogue, held_by, notebooks, progress
from labkit.server.database import Dsn

NOTEBOOK = {name: notebook for notebook, names in catalogue().items() for name in names}
NAMES = list(NOTEBOOK)
each_exercise = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Case:
    """An answer, and what its check should say: the outcome, and a pattern in the message."""

    answer: Callable[..., Any]
    outcome: str
    says: str


def cases(name: str) -> list[Case]:
    Exercise(name)  # puts the lessons' own modules on the path
    found: list[Case] = import_module(f"tests.exercises.answers.{name}").CASES
    return found


@cache
def cells(notebook: str) -> list[str]:
    read: Callable[..., Any] = nbformat.read
    path = notebooks() / f"{notebook}.ipynb"
    return [c.source for c in read(path, as_version=4).cells if c.cell_type == "code"]


def namespace(name: str) -> dict[str, Any]:
    """What the notebook of an exercise has imported when a learner comes to it."""
    Exercise(name)
    imported: dict[str, Any] = {}
    for cell in cells(NOTEBOOK[name]):
        tree = ast.parse(cell)
        tree.body = [step for step in tree.body if isinstance(step, ast.Import | ast.ImportFrom)]
        exec(compile(tree, "imports", "exec"), imported)
    return imported


def starter(name: str) -> tuple[Exercise, Callable[..., Any]]:
    """The exercise and the function that the notebook's own cell makes."""
    [cell] = [cell for cell in cells(NOTEBOOK[name]) if f'lab.Exercise("{name}")' in cell]
    made: dict[str, Any] = {}
    exec(compile(cell, "starter cell", "exec"), namespace(name), made)
    [exercise] = [it for it in made.values() if isinstance(it, Exercise)]
    [function] = [it for it in made.values() if not isinstance(it, Exercise)]
    return exercise, function


def solution(name: str) -> Callable[..., Any]:
    """The solution as a learner would run it, in the notebook."""
    known = namespace(name)
    before = set(known)
    exec(Exercise(name)._material.SOLUTION, known)
    found: Callable[..., Any] = [it for new, it in known.items() if new not in before][-1]
    return found


def check(name: str, answer: Callable[..., Any]) -> Verdict:
    """Check an answer; again if the machine was too busy to tell, as the verdict asks."""
    for _ in range(3):
        verdict = Exercise(name).check(answer)
        if verdict.outcome != "inconclusive":
            break
    return verdict


@each_exercise
def test_the_notebooks_own_starter_cell_is_not_an_attempt(name: str) -> None:
    exercise, function = starter(name)
    assert [f".check({function.__name__})"] == [
        cell[cell.index(".") :] for cell in cells(NOTEBOOK[name]) if ".check(" in cell
    ]
    verdict = exercise.check(function)
    assert ("not attempted", "") == (verdict.outcome, verdict.why)
    assert "Replace the `...` by your answer" in verdict.message


ALL = [pytest.param(name, case, id=f"{name}-{case.answer.__name__}") for name in NAMES for case in cases(name)]  # fmt: skip # noqa: E501


@pytest.mark.parametrize(("name", "case"), ALL)
def test_an_answer_is_judged_by_what_it_does(name: str, case: Case, dsn: Dsn) -> None:
    verdict = check(name, case.answer)
    assert case.outcome == verdict.outcome, verdict
    assert re.search(case.says, verdict.message, re.S), verdict
    assert bool(verdict.why) == (case.outcome == "pass")


@each_exercise
def test_the_solution_passes(name: str, dsn: Dsn, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = check(name, solution(name))
    assert verdict.outcome == "pass", verdict
    assert progress.read()[name]
    if name != "verify":  # where no picture helps
        assert re.search(r"\. (your|locked|user|connections).*\d", capsys.readouterr().out), (
            "no chart"
        )


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
    monkeypatch.setattr("labkit.exercises.exercise.LIMIT", 5)
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
    assert "had not ended after 0.5 s: it waited at test_exercises.py:" in verdict.message


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
    assert "had not ended after 5 s; its loop was held at test_exercises.py" in verdict.message
    assert ended, "it still runs, and takes the processor from everything after it"


@each_exercise
def test_an_answer_that_holds_the_loop_in_c_is_left_behind_and_told_where(
    name: str, dsn: Dsn, impatient: None
) -> None:
    async def sleeps(*args: object) -> None:
        time.sleep(9)

    verdict = Exercise(name).check(sleeps)
    assert verdict.outcome == "not yet", verdict
    assert "its loop is still held at test_exercises.py:" in verdict.message
    assert "in sleeps" in verdict.message
    with pytest.raises(LabError, match=r"not checked: an earlier one still runs, at .* in sleeps"):
        Exercise(name).check(sleeps)


@each_exercise
def test_no_cell_of_the_matrix_is_missing(name: str) -> None:
    outcomes = [case.outcome for case in cases(name)]
    wrong = [case.says for case in cases(name) if case.outcome == "not yet"]
    assert len(wrong) >= 2
    assert len(wrong) == len(set(wrong)), "each wrong answer has a message of its own"
    assert "raised" in outcomes
    assert "pass" in outcomes, "in another style than the solution"


def test_each_notebook_from_00_to_07_has_exercises_and_each_exercise_one_notebook() -> None:
    assert [f"0{n}" for n in range(8)] == [notebook[:2] for notebook in catalogue()]
    assert sorted(path.stem for path in (notebooks() / "exercises").glob("*.py")) == sorted(NAMES)
    assert all(1 <= len(names) <= 3 for names in catalogue().values())
    assert len(NAMES) == sum(len(names) for names in catalogue().values())


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
    assert re.search(r"[Ww]hen not to|[Dd]o not use|[Dd]o not do|is no answer for", said)


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


def test_what_is_no_coroutine_function_is_told_so() -> None:
    verdict = labkit.Exercise("report").check(lambda dsn, customer: {})
    assert "not yet" == verdict.outcome
    assert "Expected a coroutine function" in verdict.message


def test_stalls_no_longer_than_the_machines_own_delays_are_inconclusive() -> None:
    async def stalling() -> None:
        time.sleep(0.06)

    async def scenario(load: labkit.Load) -> None:
        load.offer("stalling", stalling, rate=10)
        await load.run(seconds=0.5)

    run = replace(labkit.measure(scenario), machine=labkit.Machine())
    assert 5 == len(held_by(run, 2, stalling))
    assert [] == held_by(run, 6, stalling), "too few to be sure"
    assert [] == held_by(run, 2, notebooks), "somebody else's"
    with pytest.raises(Inconclusive, match=r"in your code 5 times, but .* up to 900 ms late"):
        held_by(replace(run, machine=labkit.Machine([900.0])), 2, stalling)
