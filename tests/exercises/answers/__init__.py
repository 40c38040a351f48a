"""Answers to the exercises, right and wrong ones: for each exercise, `NAME.CASES`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """An answer, and what its check should say.

    Attributes:
        answer: The answer.
        outcome: What the verdict should be.
        says: A pattern in its message. An answer may have two faults, and be told of either.
        by_the_clock: Whether times decide; then the check may find the machine too busy to tell.
    """

    answer: Callable[..., Any]
    outcome: str
    says: str
    by_the_clock: bool = False
