"""What the tests of exercises share: the exercises, their notebooks, answers and solutions."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import nbformat
import pytest

from labkit import Exercise, Verdict
from labkit.exercises import (
    CATALOGUE,
    notebooks,
)
from tests.exercises.answers import Case

NOTEBOOK = {name: notebook for notebook, names in CATALOGUE.items() for name in names}
NAMES = list(NOTEBOOK)
each_exercise = pytest.mark.parametrize("name", NAMES)


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
