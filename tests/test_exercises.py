"""Every exercise: untouched, wrong in several ways, raising, solved, and solved in another way.

An exercise's answers stand in `answers/NAME.py`, as a list of `Case`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from labkit import Exercise
from labkit.database import Dsn
from labkit.exercises import notebooks

NAMES = sorted(path.stem for path in (notebooks() / "exercises").glob("*.py"))


@dataclass(frozen=True)
class Case:
    """An answer, and what its check should say: the outcome, and a pattern in the message."""

    answer: Callable[..., Any]
    outcome: str
    says: str


def cases(name: str) -> list[Case]:
    Exercise(name)  # puts the lessons' own modules on the path
    found: list[Case] = import_module(f"tests.answers.{name}").CASES
    return found


ALL = [pytest.param(name, case, id=f"{name}-{case.answer.__name__}") for name in NAMES for case in cases(name)]  # fmt: skip # noqa: E501


@pytest.mark.parametrize(("name", "case"), ALL)
def test_an_answer_is_judged_by_what_it_does(name: str, case: Case, dsn: Dsn) -> None:
    verdict = Exercise(name).check(case.answer)
    assert case.outcome == verdict.outcome, verdict
    assert re.search(case.says, verdict.message, re.S), verdict
    assert bool(verdict.why) == (case.outcome == "pass")


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes(name: str, dsn: Dsn) -> None:
    exercise = Exercise(name)
    namespace: dict[str, Any] = dict(vars(exercise._material))
    before = set(namespace)
    exec(exercise._material.SOLUTION, namespace)
    answers = [namespace[new] for new in namespace if new not in before and new != "__builtins__"]
    verdict = exercise.check(answers[-1])
    assert verdict.outcome == "pass", verdict


@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_get_different_messages(name: str) -> None:
    wrong = [case.says for case in cases(name) if case.outcome == "not yet"]
    assert len(wrong) >= 2
    assert len(wrong) == len(set(wrong))


@pytest.mark.parametrize("name", NAMES)
def test_hints_lead_on_and_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = Exercise(name)
    shown = []
    for _ in range(4):
        exercise.hint()
        shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 4
    assert "last hint" in shown[3]
    exercise.solution()
    assert "def " in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_its_notebook(name: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in notebooks().glob("*.ipynb")]
    assert sum(f'Exercise(\\"{name}\\")' in text for text in texts) == 1


def test_an_unknown_exercise_is_refused_with_the_known_ones() -> None:
    from labkit import LabError

    with pytest.raises(LabError, match=r"no exercise 'nope'\. Expected one of: .*report"):
        Exercise("nope")


def test_the_material_is_beside_the_notebooks() -> None:
    assert (Path(notebooks()) / "exercises" / "report.py").exists()
